// Sum of raw frames and the sum of every frame's pixels.
//
//     total[i] += raw[i]        partial[block] = sum of the block's raw pixels
//
// Launch: blocks of 256 threads, one for each 4096 pixels. Each thread owns every 256th pixel of its block's part of
// `total`; thread 0 writes `partial[block]`. Integers are summed as integers (4096 * 65535 < 2^31), so that the host
// gets exact sums. Bytes: pixels * (size of a raw pixel + 8).
#include "raw.cuh"

#define PIXELS 4096
#define THREADS 256

#define SUM_RAW(NAME, T, SUM)                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                        \
        sum_raw_##NAME(const T *__restrict__ raw, long long pixels, float *__restrict__ total, SUM *partial) {   \
        __shared__ SUM part[THREADS];                                                                            \
        const long long first = (long long)blockIdx.x * PIXELS;                                                  \
        SUM sum = 0;                                                                                             \
        for (int k = threadIdx.x; k < PIXELS && first + k < pixels; k += THREADS) {                              \
            const float v = pixel(raw[first + k]);                                                               \
            total[first + k] += v;                                                                               \
            sum += (SUM)v;                                                                                       \
        }                                                                                                        \
        part[threadIdx.x] = sum;                                                                                 \
        for (int d = THREADS / 2; d; d >>= 1) {                                                                  \
            __syncthreads();                                                                                     \
            if (threadIdx.x < d) part[threadIdx.x] += part[threadIdx.x + d];                                     \
        }                                                                                                        \
        if (threadIdx.x == 0) partial[blockIdx.x] = part[0];                                                     \
    }

FOR_EACH_PIXEL_TYPE(SUM_RAW)
