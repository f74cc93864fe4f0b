// Power spectra of overlapping tiles of an image, added up (`Backend.tile_power`).

// out[k][y][x] = (image[corner_y[k] + y][corner_x[k] + x] - mean of the tile) * window[y] * window[x]; corners are
// (y, x).
// Launch: (tiles) blocks of PIXEL_THREADS threads, one tile each.
// Bytes per pixel of a tile: 4 read, again from L2, and 4 written.
extern "C" __global__ void __launch_bounds__(PIXEL_THREADS)
    taper(const float *__restrict__ image, int nx, const int2 *__restrict__ corners, int tile,
          const float *__restrict__ window, float *__restrict__ out) {
    __shared__ float part[PIXEL_THREADS];
    const int2 corner = corners[blockIdx.x];
    const float *from = image + (size_t)corner.x * nx + corner.y;
    const int pixels = tile * tile;
    const float origin = from[0];  // differences to it are summed, which have a smaller rounding error
    float sum = 0;
    for (int k = threadIdx.x; k < pixels; k += PIXEL_THREADS) sum += from[(size_t)(k / tile) * nx + k % tile] - origin;
    part[threadIdx.x] = sum;
    for (int d = PIXEL_THREADS / 2; d; d >>= 1) {
        __syncthreads();
        if (threadIdx.x < d) part[threadIdx.x] += part[threadIdx.x + d];
    }
    __syncthreads();
    const float mean = origin + part[0] / pixels;
    out += (size_t)blockIdx.x * pixels;
    for (int k = threadIdx.x; k < pixels; k += PIXEL_THREADS) {
        const int y = k / tile, x = k % tile;
        out[k] = (from[(size_t)y * nx + x] - mean) * (window[y] * window[x]);
    }
}

// total[i] += sum over k of |spectra[k][i]|^2, i < size, one by one, so that the result does not depend on batches.
// Launch: one thread for each i, THREADS a block.
// Bytes: 8 for each coefficient of all spectra, 8 for each of the total.
extern "C" __global__ void __launch_bounds__(THREADS)
    add_powers(const float2 *__restrict__ spectra, int count, int size, float *__restrict__ total) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= size) return;
    float sum = total[i];
    for (int k = 0; k < count; k++) {
        const float2 v = spectra[(size_t)k * size + i];
        sum += v.x * v.x + v.y * v.y;
    }
    total[i] = sum;
}
