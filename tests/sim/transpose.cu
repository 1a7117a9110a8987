// Transposes a 32 x 32 tile through shared memory. Without PAD the columns of the tile lie in one bank: correct, and 32 times slower.
#ifndef PAD
#define PAD 0
#endif
template <class T> __global__ void transpose(const T *x, T *y) {
  __shared__ T tile[32][32 + PAD];
  tile[threadIdx.y][threadIdx.x] = x[threadIdx.y * 32 + threadIdx.x];
  __syncthreads();
  y[threadIdx.y * 32 + threadIdx.x] = tile[threadIdx.x][threadIdx.y];
}
template __global__ void transpose<float>(const float *, float *);
