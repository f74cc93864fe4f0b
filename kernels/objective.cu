// The refinement's objective, sum over pairs of weight * window(shift_j - shift_i), and its gradient.
//
// Windows are converted to cubic B-spline coefficients once (float). The value and the gradient are evaluated and
// summed in double precision, because a line search stalls if rounding errors of the sums are too large. This costs
// only a few hundred operations per pair; no other kernel uses double precision.

// Cubic B-spline coefficients of the lines of windows along one axis (mirror boundaries); out may be `windows`.
// Element k of line i of window m is at m * lines * n + i * line_stride + k * stride.
// Launch: one thread for each line of all windows, THREADS a block. Bytes per element: 16.
extern "C" __global__ void __launch_bounds__(THREADS)
    prefilter(const float *windows, long long all_lines, int lines, int n, int line_stride, int stride, float *out) {
    const long long line = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (line >= all_lines) return;
    const long long start = line / lines * lines * n + line % lines * line_stride;
    const float *v = windows + start;
    out += start;
    const float pole = -0.26794919243112270647f;  // sqrt(3) - 2
    float first = v[0], z = pole;
    for (int k = 1; k < n && k < 16; k++) {  // pole^16 is below float's resolution
        first += z * v[(long long)k * stride];
        z *= pole;
    }
    float last = 6 * first, before = last;
    out[0] = last;
    for (int k = 1; k < n; k++) {
        before = last;
        last = 6 * v[(long long)k * stride] + pole * last;
        out[(long long)k * stride] = last;
    }
    float next = pole / (pole * pole - 1) * (last + pole * before);
    out[(long long)(n - 1) * stride] = next;
    for (int k = n - 2; k >= 0; k--) {
        next = pole * (next - out[(long long)k * stride]);
        out[(long long)k * stride] = next;
    }
}

// Cubic B-spline weights and derivatives at -1 .. 2 for the fraction f.
__device__ __forceinline__ void cubic(double f, double *w, double *d) {
    const double g = 1 - f;
    w[0] = g * g * g / 6;
    w[1] = (4 - 6 * f * f + 3 * f * f * f) / 6;
    w[2] = (4 - 6 * g * g + 3 * g * g * g) / 6;
    w[3] = f * f * f / 6;
    d[0] = -0.5 * g * g;
    d[1] = -2 * f + 1.5 * f * f;
    d[2] = 2 * g - 1.5 * g * g;
    d[3] = 0.5 * f * f;
}

// terms[b][p] = weight * (value, d value / d shift_j along y, along x, 0); the gradient for i is the negative.
// coefficients: (batch, n_pairs, h, w). shifts: (batch, frames, 2) in window samples. Beyond its rim a window is
// constant: the gradient of a pair outside is 0.
// Launch: (ceil(n_pairs / THREADS), batch) blocks of THREADS threads, one pair each.
// Bytes: 16 coefficients and 32 written.
extern "C" __global__ void __launch_bounds__(THREADS)
    pair_terms(const float *__restrict__ coefficients, int h, int w, const int2 *__restrict__ pairs, int n_pairs,
               int frames, const double2 *__restrict__ shifts, const double *__restrict__ weights,
               double *__restrict__ terms) {
    const int p = blockIdx.x * THREADS + threadIdx.x;
    if (p >= n_pairs) return;
    const size_t b = blockIdx.y, q = b * n_pairs + p;
    const double2 from = shifts[b * frames + pairs[p].x], to = shifts[b * frames + pairs[p].y];
    const double y = to.x - from.x + h / 2, x = to.y - from.y + w / 2;
    const double cy = fmin(fmax(y, 1.0), h - 2.000001), cx = fmin(fmax(x, 1.0), w - 2.000001);
    const int y0 = (int)cy, x0 = (int)cx;
    double wy[4], wx[4], dy[4], dx[4], f = 0, gy = 0, gx = 0;
    cubic(cy - y0, wy, dy);
    cubic(cx - x0, wx, dx);
    const float *c = coefficients + (q * h + y0 - 1) * w + x0 - 1;
#pragma unroll
    for (int a = 0; a < 4; a++) {
        double row = 0, slope = 0;
#pragma unroll
        for (int m = 0; m < 4; m++) {
            const double v = c[a * w + m];
            row += v * wx[m];
            slope += v * dx[m];
        }
        f += wy[a] * row;
        gy += dy[a] * row;
        gx += wy[a] * slope;
    }
    const double weight = weights[q];
    terms[4 * q] = weight == 0 ? 0 : weight * f;
    terms[4 * q + 1] = weight == 0 || cy != y ? 0 : weight * gy;
    terms[4 * q + 2] = weight == 0 || cx != x ? 0 : weight * gx;
    terms[4 * q + 3] = 0;
}

// result[b] = (value, then the gradient (frames, 2)). Block t < frames adds the terms of the pairs that frame t is in:
// entries[first[t]] .. entries[first[t + 1] - 1] hold 2 * pair + (1 where it is the pair's second frame); block
// t = frames adds the values of all pairs.
// Launch: (frames + 1, batch) blocks of TERM_THREADS threads; thread 0 writes. Bytes: 64 for each pair.
extern "C" __global__ void __launch_bounds__(TERM_THREADS)
    sum_terms(const double *__restrict__ terms, int n_pairs, int frames, const int *__restrict__ first,
              const int *__restrict__ entries, double *__restrict__ result) {
    __shared__ double part[TERM_THREADS][2];
    const int t = blockIdx.x;
    const size_t b = blockIdx.y;
    terms += 4 * b * n_pairs;
    result += b * (2 * frames + 1);
    double sum_y = 0, sum_x = 0;
    if (t == frames) {
        for (int p = threadIdx.x; p < n_pairs; p += TERM_THREADS) sum_y += terms[4 * (size_t)p];
    } else {
        for (int e = first[t] + threadIdx.x; e < first[t + 1]; e += TERM_THREADS) {
            const double *term = terms + 4 * (size_t)(entries[e] / 2), sign = entries[e] % 2 ? 1 : -1;
            sum_y += sign * term[1];
            sum_x += sign * term[2];
        }
    }
    part[threadIdx.x][0] = sum_y;
    part[threadIdx.x][1] = sum_x;
    for (int d = TERM_THREADS / 2; d; d >>= 1) {
        __syncthreads();
        if (threadIdx.x < d) {
            part[threadIdx.x][0] += part[threadIdx.x + d][0];
            part[threadIdx.x][1] += part[threadIdx.x + d][1];
        }
    }
    if (threadIdx.x) return;
    if (t == frames) {
        result[0] = part[0][0];
    } else {
        result[1 + 2 * t] = part[0][0];
        result[2 + 2 * t] = part[0][1];
    }
}
