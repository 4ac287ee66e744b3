/* Counts the kernels, copies, waits and allocations that libtorch asks CUDA's runtime for, when it is loaded first:
 *
 *   LD_PRELOAD=libcount.so COUNT_FILE=counts.json PROGRAM ...
 *
 * cuBLAS and cuDNN carry a runtime of their own, so their kernels are not seen. Without CUDA all counts are 0. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
  unsigned x, y, z;
} dim3;

static long launches, copies, waits, allocations;

#define PASS_ON(counter, function, ...)                                              \
  static __typeof__(&function) next;                                                 \
  if (next == NULL) next = (__typeof__(&function))dlsym(RTLD_NEXT, #function);       \
  __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED);                                 \
  return next(__VA_ARGS__)

int cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared, void *stream) {
  PASS_ON(launches, cudaLaunchKernel, kernel, grid, block, arguments, shared, stream);
}

int cudaLaunchKernelExC(const void *config, const void *kernel, void **arguments) {
  PASS_ON(launches, cudaLaunchKernelExC, config, kernel, arguments);
}

int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
  PASS_ON(copies, cudaMemcpyAsync, to, from, bytes, kind, stream);
}

int cudaStreamSynchronize(void *stream) { PASS_ON(waits, cudaStreamSynchronize, stream); }

int cudaMalloc(void **memory, size_t bytes) { PASS_ON(allocations, cudaMalloc, memory, bytes); }

__attribute__((destructor)) static void tell(void) {
  const char *path = getenv("COUNT_FILE");
  FILE *file = path == NULL ? NULL : fopen(path, "w");
  if (file == NULL) return;
  fprintf(file, "{\"launches\": %ld, \"copies\": %ld, \"waits\": %ld, \"allocations\": %ld}\n", launches, copies, waits,
          allocations);
  fclose(file);
}
