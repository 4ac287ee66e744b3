// A library with NCCL's C interface for ranks that are threads of one process and tensors of the host, for tests.
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct Shared {
  std::mutex mutex;
  std::condition_variable changed;
  int size = 0, come = 0, round = 0;
  bool aborted = false;
  std::atomic<bool> is_broken{false};
  std::vector<const void *> inputs;
  std::vector<void *> outputs;

  // Runs `work` once all ranks have come, on the last of them.
  template <class F> int together(int rank, const void *input, void *output, F &&work) {
    std::unique_lock<std::mutex> lock(mutex);
    inputs[rank] = input;
    outputs[rank] = output;
    const int own = round;
    if (++come == size) {
      work();
      come = 0;
      ++round;
      changed.notify_all();
    } else {
      changed.wait(lock, [&] { return round != own || aborted; });
    }
    return aborted && round == own ? 6 : 0;
  }
};

std::mutex all_mutex;
std::map<std::string, std::shared_ptr<Shared>> all;
int ids = 0;

size_t bytes(int kind) {
  switch (kind) {
    case 0: case 1: return 1;
    case 6: case 9: return 2;
    case 2: case 3: case 7: return 4;
    default: return 8;
  }
}

template <class T> void add(const std::vector<const void *> &inputs, size_t start, size_t count, T *to) {
  for (size_t i = 0; i < count; ++i) {
    T sum = 0;
    for (const void *input : inputs) sum += static_cast<const T *>(input)[start + i];
    to[i] = sum;
  }
}

// The sum over all ranks of `count` numbers from `start` on.
std::vector<char> sum(const Shared &shared, size_t start, size_t count, int kind) {
  std::vector<char> result(count * bytes(kind));
  switch (kind) {
    case 4: add(shared.inputs, start, count, reinterpret_cast<int64_t *>(result.data())); break;
    case 7: add(shared.inputs, start, count, reinterpret_cast<float *>(result.data())); break;
    case 8: add(shared.inputs, start, count, reinterpret_cast<double *>(result.data())); break;
    default: std::abort();
  }
  return result;
}

} // namespace

struct ncclComm {
  std::shared_ptr<Shared> shared;
  int rank;
};

extern "C" {

struct ncclUniqueId {
  char internal[128];
};

int ncclGetVersion(int *version) {
  *version = 22809;
  return 0;
}
int ncclGetUniqueId(ncclUniqueId *id) {
  std::lock_guard<std::mutex> lock(all_mutex);
  std::memset(id->internal, 0, sizeof id->internal);
  std::strcpy(id->internal, std::to_string(++ids).c_str());
  return 0;
}
int ncclCommInitRank(ncclComm **comm, int size, ncclUniqueId id, int rank) {
  std::shared_ptr<Shared> shared;
  {
    std::lock_guard<std::mutex> lock(all_mutex);
    auto &known = all[id.internal];
    if (!known) known = std::make_shared<Shared>();
    shared = known;
    shared->size = size;
    shared->inputs.resize(size);
    shared->outputs.resize(size);
  }
  *comm = new ncclComm{shared, rank};
  return shared->together(rank, nullptr, nullptr, [] {});
}
int ncclCommDestroy(ncclComm *comm) {
  delete comm;
  return 0;
}
int ncclCommAbort(ncclComm *comm) {
  std::lock_guard<std::mutex> lock(comm->shared->mutex);
  comm->shared->aborted = true;
  comm->shared->changed.notify_all();
  return 0;
}
int ncclCommGetAsyncError(ncclComm *comm, int *result) {
  *result = comm->shared->is_broken ? 6 : 0;
  return 0;
}
// A sum of 13 numbers is one in which a connection breaks.
int ncclAllReduce(const void *input, void *output, size_t count, int kind, int, ncclComm *comm, void *) {
  auto &shared = *comm->shared;
  if (count == 13) shared.is_broken = true;
  return shared.together(comm->rank, input, output, [&] {
    const auto result = sum(shared, 0, count, kind);
    for (void *to : shared.outputs) std::memcpy(to, result.data(), result.size());
  });
}
int ncclReduceScatter(const void *input, void *output, size_t count, int kind, int, ncclComm *comm, void *) {
  auto &shared = *comm->shared;
  return shared.together(comm->rank, input, output, [&] {
    for (int rank = 0; rank < shared.size; ++rank) {
      const auto result = sum(shared, rank * count, count, kind);
      std::memcpy(shared.outputs[rank], result.data(), result.size());
    }
  });
}
int ncclAllGather(const void *input, void *output, size_t count, int kind, ncclComm *comm, void *) {
  auto &shared = *comm->shared;
  return shared.together(comm->rank, input, output, [&] {
    for (void *to : shared.outputs)
      for (int rank = 0; rank < shared.size; ++rank)
        std::memcpy(static_cast<char *>(to) + rank * count * bytes(kind), shared.inputs[rank], count * bytes(kind));
  });
}
int ncclBroadcast(const void *input, void *output, size_t count, int kind, int root, ncclComm *comm, void *) {
  auto &shared = *comm->shared;
  return shared.together(comm->rank, input, output, [&] {
    for (void *to : shared.outputs) std::memmove(to, shared.inputs[root], count * bytes(kind));
  });
}
const char *ncclGetErrorString(int result) { return result == 6 ? "remote process exited" : "an error"; }
const char *ncclGetLastError(ncclComm *) { return "no more is known"; }

} // extern "C"
