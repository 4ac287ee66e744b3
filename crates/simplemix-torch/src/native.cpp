// What tch 0.24 lacks of libtorch 2.11's C++ interface, as functions with a C interface for src/native.rs.
//
// No CUDA header is needed: whatever belongs to a device goes through the dispatcher and at::accelerator, so one program
// runs with and without a GPU. A function that fails returns null or does nothing, and leaves the error's text to
// smx_take_error of the same thread.
#define AT_PER_OPERATOR_HEADERS
#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>
#include <c10/core/Event.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#ifdef __linux__
#include <malloc.h> // tells glibc by __GLIBC__, and has its malloc_trim
#endif

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "guarded.h"

using at::Tensor;

namespace {

std::vector<Tensor> list(Tensor *const *all, int64_t count) {
  std::vector<Tensor> tensors;
  tensors.reserve(count);
  for (int64_t i = 0; i < count; ++i) tensors.push_back(*all[i]);
  return tensors;
}

// A function of Rust that computes gradients; `call` owns what `data` points to until `drop`.
struct Closure {
  void *data;
  bool (*call)(void *data, Tensor **gradients, int64_t outputs, Tensor **results, int64_t inputs);
  void (*drop)(void *data);
};

struct Function : torch::autograd::Node {
  Closure closure;
  std::string label;
  int64_t inputs;

  Function(Closure closure, std::string label, int64_t inputs)
      : closure(closure), label(std::move(label)), inputs(inputs) {}
  ~Function() override { release_variables(); }

  std::string name() const override { return label; }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closure.data != nullptr) closure.drop(closure.data);
    closure.data = nullptr;
  }

  torch::autograd::variable_list apply(torch::autograd::variable_list &&gradients) override {
    std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(closure.data != nullptr, label, " was run backward before, and keeps nothing for a second time");
    std::vector<Tensor *> given;
    for (auto &gradient : gradients) given.push_back(new Tensor(std::move(gradient)));
    std::vector<Tensor *> results(inputs, nullptr);
    const bool done = closure.call(closure.data, given.data(), given.size(), results.data(), inputs);
    torch::autograd::variable_list all;
    for (auto *result : results) {
      all.push_back(result == nullptr ? Tensor() : *result);
      delete result;
    }
    failed = false;
    TORCH_CHECK(done, label, ": ", failure);
    return all;
  }
};

// A function of Rust that is told of leaves by their numbers; owned by the hooks until `drop`.
struct Teller {
  void *data;
  void (*call)(void *data, int64_t leaf);
  void (*drop)(void *data);
};

struct LeafHook : torch::autograd::FunctionPostHook {
  const Teller &teller;
  int64_t leaf;
  LeafHook(const Teller &teller, int64_t leaf) : teller(teller), leaf(leaf) {}

  torch::autograd::variable_list operator()(const torch::autograd::variable_list &outputs,
                                            const torch::autograd::variable_list &) override {
    teller.call(teller.data, leaf);
    return outputs;
  }
};

// Hooks on the nodes that add gradients to leaves, which live as long as this.
struct LeafHooks {
  Teller teller;
  std::vector<std::pair<std::shared_ptr<torch::autograd::Node>, uintptr_t>> nodes;

  explicit LeafHooks(Teller teller) : teller(teller) {}
  LeafHooks(const LeafHooks &) = delete;
  ~LeafHooks() {
    for (auto &[node, key] : nodes) node->del_post_hook(key);
    teller.drop(teller.data);
  }
};

// A recorded call: how deep it is inside others, what it does, and its name.
struct Recorded {
  int64_t depth;
  int kind;
  std::string name;
};

// Calls that are recorded on this thread.
thread_local std::vector<Recorded> *trace = nullptr;
thread_local int64_t depth = 0;
thread_local at::CallbackHandle handle = 0;

enum { COMPOSITE = 0, KERNEL = 1, VIEW = 2 };

bool starts_with(const std::string &text, const char *start) { return text.rfind(start, 0) == 0; }

// Whether an operator is made of others, does work of its own, or makes a view or an unfilled tensor.
int kind_of(const at::RecordFunction &function) {
  const auto name = function.operator_name();
  if (!name.has_value()) return COMPOSITE;
  const auto found = c10::Dispatcher::singleton().findSchema(*name);
  if (!found.has_value() || found->hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd))
    return COMPOSITE;
  for (const char *start : {"aten::empty", "aten::new_empty", "aten::resize_", "aten::set_"})
    if (starts_with(name->name, start)) return VIEW;
  for (const auto &result : found->schema().returns())
    if (result.alias_info() != nullptr && !result.alias_info()->isWrite()) return VIEW;
  return found->hasKernelForDispatchKey(c10::DispatchKey::CPU) ? KERNEL : COMPOSITE;
}

std::unique_ptr<at::ObserverContext> begins(const at::RecordFunction &function) {
  if (trace != nullptr) {
    trace->push_back({depth, kind_of(function), function.name()});
    ++depth;
  }
  return nullptr;
}

void ends(const at::RecordFunction &, at::ObserverContext *) {
  if (trace != nullptr) --depth;
}

// MurmurHash3's finaliser.
uint32_t mixed(uint32_t h) {
  h ^= h >> 16;
  h *= 0x85ebca6bu;
  h ^= h >> 13;
  h *= 0xc2b2ae35u;
  return h ^ (h >> 16);
}

// The same over tensors of Int.
Tensor mixed(Tensor h) {
  const auto fold = [](const Tensor &t, int64_t bits) {
    return t.bitwise_xor(t.__rshift__(bits).bitwise_and((int64_t(1) << (32 - bits)) - 1));
  };
  h = fold(h, 16).mul(static_cast<int32_t>(0x85ebca6bu));
  h = fold(h, 13).mul(static_cast<int32_t>(0xc2b2ae35u));
  return fold(h, 16);
}

constexpr uint32_t GOLDEN = 0x9e3779b9u;

template <class F> Tensor dropped_on_host(const Tensor &x, const Tensor &keys, uint32_t seed, uint32_t least, F scale) {
  auto result = at::empty_like(x);
  const int64_t width = x.size(1);
  const F *from = x.const_data_ptr<F>();
  const int32_t *key = keys.const_data_ptr<int32_t>();
  F *to = result.mutable_data_ptr<F>();
  at::parallel_for(0, x.size(0), 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const uint32_t start = mixed(static_cast<uint32_t>(key[row]) ^ seed);
      for (int64_t i = 0; i < width; ++i) {
        const bool keep = mixed(start + static_cast<uint32_t>(i) * GOLDEN) >= least;
        to[row * width + i] = keep ? static_cast<F>(from[row * width + i] * scale) : F(0);
      }
    }
  });
  return result;
}

Tensor dropped_by_operators(const Tensor &x, const Tensor &keys, uint32_t seed, uint32_t least, double scale) {
  const auto start = mixed(keys.bitwise_xor(static_cast<int32_t>(seed))).unsqueeze(1);
  const auto features = at::arange(x.size(1), keys.options()).mul(static_cast<int32_t>(GOLDEN)).unsqueeze(0);
  // Signed numbers compare as unsigned ones if the highest bit is turned.
  const auto bits = mixed(start.add(features)).bitwise_xor(std::numeric_limits<int32_t>::min());
  const auto keep = bits.ge(static_cast<int32_t>(least ^ 0x80000000u));
  return x.mul(keep.to(x.scalar_type()).mul(scale));
}

bool has_accelerator() { return at::accelerator::getAccelerator(false).has_value(); }

} // namespace

extern "C" {

// The last error's text and whether there was one; the text is valid until the thread's next call.
const char *smx_take_error() {
  if (!failed) return nullptr;
  failed = false;
  return failure.c_str();
}

void smx_fail(const char *text, size_t length) {
  failure.assign(text, length);
  failed = true;
}

void smx_backward(Tensor *const *roots, Tensor *const *gradients, int64_t count) {
  guarded([&] { torch::autograd::backward(list(roots, count), list(gradients, count)); });
}

void smx_set_gradient(Tensor *leaf, Tensor *gradient) {
  guarded([&] { leaf->mutable_grad() = gradient == nullptr ? Tensor() : *gradient; });
}

// Gives each of two tensors the memory of the other; views go along with their tensor.
void smx_exchange_memory(Tensor *a, Tensor *b) {
  guarded([&] {
    auto *one = a->storage().unsafeGetStorageImpl(), *other = b->storage().unsafeGetStorageImpl();
    TORCH_CHECK(one != other && one->device() == other->device(), "not two memories of one device");
    const auto bytes = one->nbytes();
    auto kept = one->set_data_ptr(std::move(other->mutable_data_ptr()));
    other->set_data_ptr_noswap(std::move(kept));
    one->set_nbytes(other->nbytes());
    other->set_nbytes(bytes);
  });
}

bool smx_has_memory(Tensor *tensor) {
  return guarded([&] {
    const auto last = tensor->numel() == 0 ? 0 : tensor->storage_offset() + tensor->numel();
    return tensor->storage().nbytes() >= static_cast<size_t>(last) * tensor->element_size();
  });
}

void smx_set_gradient_kind(Tensor *leaf, int kind) {
  guarded([&] { leaf->set_grad_dtype(static_cast<at::ScalarType>(kind)); });
}

int smx_gradient_kind(Tensor *leaf) {
  return guarded([&] { return static_cast<int>(leaf->grad_dtype().value_or(leaf->scalar_type())); });
}

// Tells `teller` of each leaf after a backward pass has come to it, whether it brought a gradient or not; takes the teller in
// any case.
LeafHooks *smx_leaf_hooks(Tensor *const *leaves, int64_t count, Teller teller) {
  return guarded([&] {
    auto hooks = std::make_unique<LeafHooks>(teller);
    for (int64_t leaf = 0; leaf < count; ++leaf) {
      auto node = torch::autograd::impl::grad_accumulator(*leaves[leaf]);
      TORCH_CHECK(node != nullptr, "tensor ", leaf, " is no leaf");
      const auto key = node->add_post_hook(std::make_unique<LeafHook>(hooks->teller, leaf));
      hooks->nodes.emplace_back(std::move(node), key);
    }
    return hooks.release();
  });
}

void smx_leaf_hooks_drop(LeafHooks *hooks) { delete hooks; }

Tensor *smx_norm(Tensor *const *tensors, int64_t count) {
  return guarded([&] {
    auto norms = at::_foreach_norm(list(tensors, count), 2, at::kFloat);
    return new Tensor(at::linalg_vector_norm(at::stack(norms), 2));
  });
}

void smx_copy_all(Tensor *const *to, Tensor *const *from, int64_t count) {
  guarded([&] {
    auto targets = list(to, count);
    at::_foreach_copy_(targets, list(from, count), /*non_blocking=*/true);
  });
}

void smx_zero_all(Tensor *const *tensors, int64_t count) {
  guarded([&] {
    auto all = list(tensors, count);
    at::_foreach_zero_(all);
  });
}

void smx_adamw(Tensor *const *weights, Tensor *const *gradients, Tensor *const *means, Tensor *const *squares,
               int64_t count, Tensor *step, double learning_rate, double beta1, double beta2, double weight_decay,
               double epsilon, Tensor *divisor) {
  guarded([&] {
    auto w = list(weights, count), g = list(gradients, count), m = list(means, count), s = list(squares, count);
    std::vector<Tensor> none, steps(count, *step);
    auto scale = divisor == nullptr ? std::optional<Tensor>() : std::optional<Tensor>(*divisor);
    at::_fused_adamw_(w, g, m, s, none, steps, learning_rate, beta1, beta2, weight_decay, epsilon, false, false, scale,
                      std::nullopt);
  });
}

Tensor *smx_flash_attention(Tensor *q, Tensor *k, Tensor *v, Tensor *starts_q, Tensor *starts_k, int64_t longest_q,
                            int64_t longest_k, bool causal, double scale, int64_t window) {
  return guarded([&] {
    using Side = std::optional<int64_t>;
    const Side left = window < 1 ? Side() : Side(window - 1), right = window < 1 ? Side() : Side(0);
    auto results = at::_flash_attention_forward(*q, *k, *v, *starts_q, *starts_k, longest_q, longest_k, 0.0, causal,
                                                false, scale, left, right);
    return new Tensor(std::get<0>(results));
  });
}

bool smx_records(Tensor *const *inputs, int64_t count) {
  return guarded([&] { return torch::autograd::compute_requires_grad(list(inputs, count)); });
}

// Makes `outputs` results of `inputs` in the graph, whose gradients `closure` computes; takes the closure in any case.
void smx_function(const char *name, size_t length, Tensor *const *inputs, int64_t input_count, Tensor *const *outputs,
                  int64_t output_count, Closure closure) {
  guarded([&] {
    std::shared_ptr<Function> node(new Function(closure, std::string(name, length), input_count),
                                   torch::autograd::deleteNode);
    auto sources = list(inputs, input_count);
    if (!torch::autograd::compute_requires_grad(sources)) return;
    node->set_next_edges(torch::autograd::collect_next_edges(sources));
    for (int64_t i = 0; i < output_count; ++i) torch::autograd::set_history(*outputs[i], node);
  });
}

// `x` `[T, I]` with elements dropped by a hash of (seed, key of the row, feature): those whose hash is below `least`.
Tensor *smx_dropout(Tensor *x, Tensor *keys, uint32_t seed, uint32_t least, double scale, bool by_operators) {
  return guarded([&] {
    if (!by_operators && x->device().is_cpu() && x->is_contiguous()) {
      if (x->scalar_type() == at::kFloat)
        return new Tensor(dropped_on_host<float>(*x, *keys, seed, least, static_cast<float>(scale)));
      if (x->scalar_type() == at::kDouble) return new Tensor(dropped_on_host<double>(*x, *keys, seed, least, scale));
    }
    return new Tensor(dropped_by_operators(*x, *keys, seed, least, scale));
  });
}

void smx_trace_begin() {
  guarded([&] {
    delete trace;
    trace = new std::vector<Recorded>();
    depth = 0;
    handle = at::addThreadLocalCallback(at::RecordFunctionCallback(begins, ends));
  });
}

// Hands each call since smx_trace_begin to `take`, and ends the trace.
void smx_trace_end(void *data, void (*take)(void *, int64_t depth, int kind, const char *name, size_t length)) {
  guarded([&] {
    if (trace == nullptr) return;
    at::removeCallback(handle);
    std::unique_ptr<std::vector<Recorded>> calls(trace);
    trace = nullptr;
    for (const auto &call : *calls) take(data, call.depth, call.kind, call.name.data(), call.name.size());
  });
}

// The span of a named call, for traces.
void *smx_call_begin(const char *name, size_t length) {
  return guarded([&] {
    auto *call = new at::RecordFunction(at::RecordScope::USER_SCOPE);
    if (call->isActive()) call->before(std::string(name, length));
    return static_cast<void *>(call);
  });
}

void smx_call_end(void *call) { delete static_cast<at::RecordFunction *>(call); }

// Bits: 1 flash, 2 memory-efficient, 4 math, 8 cuDNN.
void smx_set_attention_kernels(int kernels) {
  auto &context = at::globalContext();
  context.setSDPUseFlash(kernels & 1);
  context.setSDPUseMemEfficient(kernels & 2);
  context.setSDPUseMath(kernels & 4);
  context.setSDPUseCuDNN(kernels & 8);
}

int smx_attention_kernels() {
  const auto &context = at::globalContext();
  return (context.userEnabledFlashSDP() ? 1 : 0) | (context.userEnabledMemEfficientSDP() ? 2 : 0) |
         (context.userEnabledMathSDP() ? 4 : 0) | (context.userEnabledCuDNNSDP() ? 8 : 0);
}

void smx_set_matmul_precision(const char *precision, size_t length) {
  guarded([&] { at::globalContext().setFloat32MatmulPrecision(std::string(precision, length)); });
}

void smx_set_half_sums(bool allowed) {
  guarded([&] {
    at::globalContext().setAllowBF16ReductionCuBLAS(allowed);
    at::globalContext().setAllowFP16ReductionCuBLAS(allowed);
  });
}

bool smx_has_accelerator() { return has_accelerator(); }

void smx_select_device(int device) {
  guarded([&] { at::accelerator::setDeviceIndex(device); });
}

void smx_synchronize(int device) {
  guarded([&] { at::accelerator::synchronizeDevice(device); });
}

// Allocated, peak of that, reserved, peak of that, free, total; bytes.
void smx_memory(int device, int64_t *bytes) {
  guarded([&] {
    const auto stats = at::accelerator::getDeviceStats(device);
    const auto [free, total] = at::accelerator::getMemoryInfo(device);
    bytes[0] = stats.allocated_bytes[0].current;
    bytes[1] = stats.allocated_bytes[0].peak;
    bytes[2] = stats.reserved_bytes[0].current;
    bytes[3] = stats.reserved_bytes[0].peak;
    bytes[4] = free;
    bytes[5] = total;
  });
}

void smx_reset_peak(int device) {
  guarded([&] { at::accelerator::resetPeakStats(device); });
}

void smx_trim_heap() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

// Maps blocks of some size each, or leaves that to those that are as large as glibc itself lets the limit grow to.
void smx_map_blocks(bool small) {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, small ? 128 << 10 : 32 << 20);
  mallopt(M_TRIM_THRESHOLD, small ? 128 << 10 : 64 << 20);
#endif
}

void smx_empty_cache() {
  guarded([&] { at::accelerator::emptyCache(); });
}

void *smx_event_record(int device) {
  return guarded([&] {
    const auto type = at::accelerator::getAccelerator(true).value();
    auto event = std::make_unique<c10::Event>(type, c10::EventFlag::BACKEND_DEFAULT);
    event->record(at::accelerator::getCurrentStream(device));
    return static_cast<void *>(event.release());
  });
}

void smx_event_synchronize(void *event) {
  guarded([&] { static_cast<c10::Event *>(event)->synchronize(); });
}

double smx_event_milliseconds(void *from, void *to) {
  return guarded([&] {
    auto *end = static_cast<c10::Event *>(to);
    end->synchronize();
    return static_cast<c10::Event *>(from)->elapsedTime(*end);
  });
}

void smx_event_drop(void *event) { delete static_cast<c10::Event *>(event); }

// The generator of a device of its kind; -1 for the CPU.
Tensor *smx_generator_state(int device) {
  return guarded([&] {
    const auto place =
        device < 0 ? at::Device(at::kCPU) : at::Device(at::accelerator::getAccelerator(true).value(), device);
    return new Tensor(at::globalContext().defaultGenerator(place).get_state());
  });
}

void smx_set_generator_state(int device, Tensor *state) {
  guarded([&] {
    const auto place =
        device < 0 ? at::Device(at::kCPU) : at::Device(at::accelerator::getAccelerator(true).value(), device);
    auto generator = at::globalContext().defaultGenerator(place);
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(*state);
  });
}
}
