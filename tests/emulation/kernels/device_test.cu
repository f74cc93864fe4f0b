// Kernels of test_pycuda_device.py.

// out[i] = scale * a[i] + offset. Launch: (ceil(n / 64)) blocks of 64 threads, one output each.
extern "C" __global__ void scale(const float *a, float scale, double offset, long long n, unsigned char odd, float *out) {
    const long long i = blockIdx.x * 64LL + threadIdx.x;
    if (i < n) out[i] = scale * a[i] + (float)offset + odd;
}

// out[block] = sum of the block's part of a, in dynamic shared memory. Launch: (n / 256) blocks of 256 threads.
extern "C" __global__ void block_sums(const float *a, float *out) {
    extern __shared__ float buffer[];
    const int t = threadIdx.x;
    buffer[t] = a[blockIdx.x * 256 + t];
    __syncthreads();
    for (int d = 128; d; d >>= 1) {
        if (t < d) buffer[t] += buffer[t + d];
        __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = buffer[0];
}

// A barrier that half of the threads miss: undefined on a GPU, an error on the test driver.
extern "C" __global__ void divergent(float *out) {
    if (threadIdx.x < 16) __syncthreads();
    out[threadIdx.x] = 1.f;
}

// As `scale` by 1, after some 100 ms on a GPU, so that nothing else has finished by chance only.
// Launch: (ceil(n / 64)) blocks of 64 threads, one output each.
extern "C" __global__ void late_copy(const float *a, long long n, float *out) {
    const long long i = blockIdx.x * 64LL + threadIdx.x, start = clock64();
    while (clock64() - start < 150000000LL) {
    }
    if (i < n) out[i] = a[i];
}
