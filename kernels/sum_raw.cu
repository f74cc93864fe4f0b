// Sum of raw frames and the sum of every frame's pixels.
//
//     total[i] += raw[i]        partial[block] = sum of the block's raw pixels
//
// Launch: blocks of PIXEL_THREADS threads, one for each SUM_PIXELS pixels. Thread k of a block adds the pixels k,
// k + PIXEL_THREADS, .. of the block to `total`; thread 0 writes `partial[block]`. Integers are summed as integers
// (SUM_PIXELS * 65535 < 2^31), so that the host gets exact sums. Bytes: pixels * (size of a raw pixel + 8).
#include "raw.cuh"

#define SUM_RAW(NAME, T, SUM)                                                                                    \
    extern "C" __global__ void __launch_bounds__(PIXEL_THREADS)                                                  \
        sum_raw_##NAME(const T *__restrict__ raw, long long pixels, float *__restrict__ total, SUM *partial) {   \
        __shared__ SUM part[PIXEL_THREADS];                                                                      \
        const long long first = (long long)blockIdx.x * SUM_PIXELS;                                              \
        SUM sum = 0;                                                                                             \
        for (int k = threadIdx.x; k < SUM_PIXELS && first + k < pixels; k += PIXEL_THREADS) {                    \
            const float v = pixel(raw[first + k]);                                                               \
            total[first + k] += v;                                                                               \
            sum += (SUM)v;                                                                                       \
        }                                                                                                        \
        part[threadIdx.x] = sum;                                                                                 \
        for (int d = PIXEL_THREADS / 2; d; d >>= 1) {                                                            \
            __syncthreads();                                                                                     \
            if (threadIdx.x < d) part[threadIdx.x] += part[threadIdx.x + d];                                     \
        }                                                                                                        \
        if (threadIdx.x == 0) partial[blockIdx.x] = part[0];                                                     \
    }

FOR_EACH_PIXEL_TYPE(SUM_RAW)
