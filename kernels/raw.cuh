// Conversion of raw pixels of all types that movies have to float, and a macro that defines a kernel for each type.
#pragma once

struct half_bits {
    unsigned short bits;
};

__device__ __forceinline__ float pixel(unsigned char v) { return v; }
__device__ __forceinline__ float pixel(signed char v) { return v; }
__device__ __forceinline__ float pixel(unsigned short v) { return v; }
__device__ __forceinline__ float pixel(short v) { return v; }
__device__ __forceinline__ float pixel(float v) { return v; }
__device__ __forceinline__ float pixel(half_bits v) {
    const int sign = (v.bits & 0x8000) << 16, rest = (v.bits & 0x7fff) << 13;
    // Exponents differ by 112 (2^112 = 5.19e33); infinity and NaN keep an exponent of all ones.
    const float size =
        (v.bits & 0x7c00) == 0x7c00 ? __int_as_float(rest | 0x7f800000) : __int_as_float(rest) * 5.192296858534828e33f;
    return __int_as_float(__float_as_int(size) | sign);
}

// KERNEL(name, type of a pixel, type in which SUM_PIXELS pixels can be summed)
#define FOR_EACH_PIXEL_TYPE(KERNEL) \
    KERNEL(u8, unsigned char, int)  \
    KERNEL(i8, signed char, int)    \
    KERNEL(u16, unsigned short, int) \
    KERNEL(i16, short, int)         \
    KERNEL(f16, half_bits, float)   \
    KERNEL(f32, float, float)
