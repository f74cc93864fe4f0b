// Correction of raw pixels: out = (raw - dark) * gain, then defects are replaced by the mean of their good neighbours.
#include "raw.cuh"

template <class T>
__device__ __forceinline__ float corrected(const T *raw, const float *dark, const float *gain, long long i) {
    float v = pixel(raw[i]);
    if (dark) v -= dark[i];
    if (gain) v *= gain[i];
    return v;
}

// out[y][x] = corrected raw[top + y][left + x] of the height x width part of a frame; dark, gain may be null.
// Launch: (ceil(width / PIXEL_THREADS), height) blocks of PIXEL_THREADS threads, one output pixel each.
// Bytes per pixel: size of a raw pixel + 4 for the gain + 4 for the dark + 4 written.
#define CORRECT(NAME, T, SUM)                                                                                     \
    extern "C" __global__ void __launch_bounds__(PIXEL_THREADS)                                                   \
        correct_##NAME(const T *__restrict__ raw, int nx, const float *__restrict__ dark,                         \
                       const float *__restrict__ gain, int top, int left, int width, float *__restrict__ out) {   \
        const int x = blockIdx.x * PIXEL_THREADS + threadIdx.x, y = blockIdx.y;                                   \
        if (x < width)                                                                                            \
            out[(long long)y * width + x] = corrected(raw, dark, gain, (long long)(top + y) * nx + left + x);     \
    }

FOR_EACH_PIXEL_TYPE(CORRECT)

// The good neighbours of defect d are neighbours[first[d]] .. neighbours[first[d + 1] - 1]; all are y * nx + x.
// Launch: one thread for each defect, THREADS a block; it writes that defect's output pixel.
#define REPLACE_DEFECTS(NAME, T, SUM)                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                          \
        replace_defects_##NAME(const T *__restrict__ raw, int nx, const float *__restrict__ dark,                  \
                               const float *__restrict__ gain, int count, const int *__restrict__ defects,         \
                               const int *__restrict__ first, const int *__restrict__ neighbours, int top,         \
                               int left, int height, int width, float *__restrict__ out) {                         \
        const int d = blockIdx.x * THREADS + threadIdx.x;                                                          \
        if (d >= count) return;                                                                                    \
        const int y = defects[d] / nx - top, x = defects[d] % nx - left;                                           \
        if (y < 0 || x < 0 || y >= height || x >= width) return;                                                   \
        float sum = 0;                                                                                             \
        const int from = first[d], to = first[d + 1];                                                              \
        _Pragma("unroll 1") for (int k = from; k < to; k++) sum += corrected(raw, dark, gain, neighbours[k]);      \
        out[(long long)y * width + x] = to > from ? sum / (to - from) : 0.f;                                       \
    }

FOR_EACH_PIXEL_TYPE(REPLACE_DEFECTS)
