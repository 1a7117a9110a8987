// Sums of blocks by halves. The barrier of the loop is missing: threads read what others have not added yet.
extern "C" __global__ void reduce(const float *x, float *sum) {
  __shared__ float part[128];
  int t = threadIdx.x;
  part[t] = x[blockIdx.x * 128 + t];
  __syncthreads();
  for (int half = 64; half > 0; half /= 2) {
    if (t < half) part[t] += part[t + half]; // line 8
#ifdef FIXED
    __syncthreads();
#endif
  }
  if (t == 0) sum[blockIdx.x] = part[0];
}
