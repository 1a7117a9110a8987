// y = a x, and one element too many: the comparison should be i < n.
extern "C" __global__ void scale(const float *x, float *y, float a, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
#ifdef FIXED
  if (i < n) y[i] = a * x[i];
#else
  if (i <= n) y[i] = a * x[i]; // line 7
#endif
}
