// Loops of training that run on a CPU faster than what libtorch composes from operators, with a C interface for src/native.rs.
//
// Products of matrices are libtorch's own (MKL's, which libtorch exports); what lies between them is here. Every element of a
// result is computed by one thread and in an order that depends on shapes alone, so results do not depend on threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "guarded.h"

using at::Tensor;

// Builds of libtorch with another library of linear algebra need not export these.
extern "C" {
__attribute__((weak)) void sgemm_(const char *, const char *, const int *, const int *, const int *, const float *,
                                  const float *, const int *, const float *, const int *, const float *, float *,
                                  const int *);
__attribute__((weak)) void dgemm_(const char *, const char *, const int *, const int *, const int *, const double *,
                                  const double *, const int *, const double *, const int *, const double *, double *,
                                  const int *);
__attribute__((weak)) int MKL_Set_Num_Threads_Local(int);
}

// A version of the function for each generation of processors, chosen when the program starts.
#if defined(__x86_64__) && defined(__GNUC__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

// Part of such a function: compiled with it for each processor.
#define PART __attribute__((always_inline)) inline

namespace {

// A matrix in rows: its first element and the distance between rows.
template <class F> struct Matrix {
  F *data;
  int64_t stride;

  Matrix rows(int64_t from) const { return {data + from * stride, stride}; }
  Matrix columns(int64_t from) const { return {data + from, stride}; }
  operator Matrix<const F>() const { return {data, stride}; }
};

// c (m x n) = a b + beta c; `a` is m x k, or k x m if transposed, and so on.
template <class F>
void product(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, Matrix<const F> a, Matrix<const F> b,
             F beta, Matrix<F> c) {
  if (m == 0 || n == 0 || k == 0) return;
  // BLAS has columns where we have rows: transposed, the product is that of the factors in turn.
  const int columns = n, rows = m, inner = k, a_stride = a.stride, b_stride = b.stride, c_stride = c.stride;
  const char *of_a = transpose_a ? "T" : "N", *of_b = transpose_b ? "T" : "N";
  const F one = 1;
  if constexpr (std::is_same_v<F, float>)
    sgemm_(of_b, of_a, &columns, &rows, &inner, &one, b.data, &b_stride, a.data, &a_stride, &beta, c.data, &c_stride);
  else
    dgemm_(of_b, of_a, &columns, &rows, &inner, &one, b.data, &b_stride, a.data, &a_stride, &beta, c.data, &c_stride);
}

// e^x for x <= 0 as in Cephes' expf, within 2 units of the last place; 0 below the smallest normal number.
PART float exponential(float x) {
  const float shifted = std::max(x, -87.0f) * 1.44269504088896341f + 12582912.0f; // 1.5 * 2^23: rounds to an integer
  const float whole = shifted - 12582912.0f;
  const float y = std::max(x, -87.0f) - whole * 0.693359375f + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * y + 1.3981999507e-3f;
  p = p * y + 8.3334519073e-3f;
  p = p * y + 4.1665795894e-2f;
  p = p * y + 1.6666665459e-1f;
  p = p * y + 5.0000001201e-1f;
  const float value = p * y * y + y + 1.0f;
  int32_t bits;
  std::memcpy(&bits, &shifted, 4);
  const int32_t power = (bits - 0x4b400000 + 127) << 23;
  float scale;
  std::memcpy(&scale, &power, 4);
  return x < -87.0f ? 0.0f : value * scale;
}

PART double exponential(double x) { return std::exp(x); }

// The largest of n numbers, in lanes: compilers take a plain loop one number at a time, because of NaN.
template <class F> PART F most_of(const F *s, int64_t n) {
  constexpr int64_t LANES = 16;
  F lanes[LANES];
  std::fill(lanes, lanes + LANES, s[0]);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES)
    for (int64_t lane = 0; lane < LANES; ++lane) lanes[lane] = s[i + lane] > lanes[lane] ? s[i + lane] : lanes[lane];
  for (; i < n; ++i) lanes[0] = s[i] > lanes[0] ? s[i] : lanes[0];
  return *std::max_element(lanes, lanes + LANES);
}

// Products of a query with n keys become weights that are not normalised yet. Returns their sum; `shift` gets what was
// subtracted from the scaled products.
template <class F> PART F weigh_all(F *s, int64_t n, F scale, F *shift) {
  const F most = most_of(s, n);
  F sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    s[i] = exponential((s[i] - most) * scale);
    sum += s[i];
  }
  *shift = most * scale;
  return sum;
}

// Products become weights, and gradients of weights become those of products.
template <class F> PART void weigh_back_all(F *s, F *ds, int64_t n, F scale, F lse, F delta) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    s[i] = exponential(std::min(s[i] * scale - lse, F(0)));
    ds[i] = s[i] * (ds[i] - delta) * scale;
  }
}

template <class F> PART F dot_all(const F *a, const F *b, int64_t n) {
  F sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Sigmoid of x, and of -x.
template <class F> PART F sigmoid(F x, F *of_minus) {
  const F e = exponential(-std::abs(x)), small = e / (1 + e), large = 1 / (1 + e);
  *of_minus = x < 0 ? large : small;
  return x < 0 ? small : large;
}

// SiLU and its derivative (Hendrycks and Gimpel 2016, arXiv:1606.08415; Ramachandran et al. 2017, arXiv:1710.05941).
template <class F> PART F silu(F x, F *slope) {
  F rest;
  const F s = sigmoid(x, &rest);
  *slope = s * (1 + x * rest);
  return x * s;
}

// GELU by tanh and its derivative: tanh(u) = 2 sigmoid(2u) - 1.
template <class F> PART F gelu(F x, F *slope) {
  const F a = F(0.79788456080286535588), b = F(0.044715);
  F rest;
  const F s = sigmoid(2 * a * (x + b * x * x * x), &rest);
  *slope = s + x * s * rest * 2 * a * (1 + 3 * b * x * x);
  return x * s;
}

template <class F> PART void gate_all(bool is_gelu, const F *gate, const F *up, F *out, int64_t n) {
  F slope;
  if (is_gelu) {
#pragma omp simd private(slope)
    for (int64_t i = 0; i < n; ++i) out[i] = gelu(gate[i], &slope) * up[i];
  } else {
#pragma omp simd private(slope)
    for (int64_t i = 0; i < n; ++i) out[i] = silu(gate[i], &slope) * up[i];
  }
}

template <class F>
PART void gate_back_all(bool is_gelu, const F *gate, const F *up, const F *d_out, F *d_gate, F *d_up, int64_t n) {
  F slope;
  if (is_gelu) {
#pragma omp simd private(slope)
    for (int64_t i = 0; i < n; ++i) {
      d_up[i] = d_out[i] * gelu(gate[i], &slope);
      d_gate[i] = d_out[i] * up[i] * slope;
    }
  } else {
#pragma omp simd private(slope)
    for (int64_t i = 0; i < n; ++i) {
      d_up[i] = d_out[i] * silu(gate[i], &slope);
      d_gate[i] = d_out[i] * up[i] * slope;
    }
  }
}

// One row of a norm; returns 1 / sqrt(mean(x^2) + eps).
template <class F> PART F norm_all(const F *x, const F *factor, F *out, int64_t n, F eps) {
  const F inverse = 1 / std::sqrt(dot_all(x, x, n) / n + eps);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * inverse * factor[i];
  return inverse;
}

// Gradient of a row, and the row's part of the factor's gradient, which is added.
template <class F>
PART void norm_back_all(const F *x, const F *factor, const F *d_out, F inverse, F *dx, F *d_factor, int64_t n) {
  F sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += d_out[i] * factor[i] * x[i];
  const F pull = sum / n * inverse * inverse;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    dx[i] = inverse * (d_out[i] * factor[i] - x[i] * pull);
    d_factor[i] += d_out[i] * x[i] * inverse;
  }
}

// Halves of a head, turned by an angle for each pair of elements; `way` is 1, or -1 to turn back.
template <class F> PART void turn_all(const F *x, const F *cos, const F *sin, F way, F *out, int64_t half) {
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const F a = x[i], b = x[half + i], s = sin[i] * way;
    out[i] = a * cos[i] - b * s;
    out[half + i] = b * cos[i] + a * s;
  }
}

FOR_EACH_PROCESSOR float weigh(float *s, int64_t n, float scale, float *shift) { return weigh_all(s, n, scale, shift); }
FOR_EACH_PROCESSOR double weigh(double *s, int64_t n, double scale, double *shift) {
  return weigh_all(s, n, scale, shift);
}
FOR_EACH_PROCESSOR void weigh_back(float *s, float *ds, int64_t n, float scale, float lse, float delta) {
  weigh_back_all(s, ds, n, scale, lse, delta);
}
FOR_EACH_PROCESSOR void weigh_back(double *s, double *ds, int64_t n, double scale, double lse, double delta) {
  weigh_back_all(s, ds, n, scale, lse, delta);
}
FOR_EACH_PROCESSOR float dot(const float *a, const float *b, int64_t n) { return dot_all(a, b, n); }
FOR_EACH_PROCESSOR double dot(const double *a, const double *b, int64_t n) { return dot_all(a, b, n); }

FOR_EACH_PROCESSOR void gated(bool gelu, const float *gate, const float *up, float *out, int64_t n) {
  gate_all(gelu, gate, up, out, n);
}
FOR_EACH_PROCESSOR void gated(bool gelu, const double *gate, const double *up, double *out, int64_t n) {
  gate_all(gelu, gate, up, out, n);
}
FOR_EACH_PROCESSOR void gate_back(bool gelu, const float *gate, const float *up, const float *d_out, float *d_gate,
                                  float *d_up, int64_t n) {
  gate_back_all(gelu, gate, up, d_out, d_gate, d_up, n);
}
FOR_EACH_PROCESSOR void gate_back(bool gelu, const double *gate, const double *up, const double *d_out, double *d_gate,
                                  double *d_up, int64_t n) {
  gate_back_all(gelu, gate, up, d_out, d_gate, d_up, n);
}
FOR_EACH_PROCESSOR float normed(const float *x, const float *factor, float *out, int64_t n, float eps) {
  return norm_all(x, factor, out, n, eps);
}
FOR_EACH_PROCESSOR double normed(const double *x, const double *factor, double *out, int64_t n, double eps) {
  return norm_all(x, factor, out, n, eps);
}
FOR_EACH_PROCESSOR void norm_back(const float *x, const float *factor, const float *d_out, float inverse, float *dx,
                                  float *d_factor, int64_t n) {
  norm_back_all(x, factor, d_out, inverse, dx, d_factor, n);
}
FOR_EACH_PROCESSOR void norm_back(const double *x, const double *factor, const double *d_out, double inverse, double *dx,
                                  double *d_factor, int64_t n) {
  norm_back_all(x, factor, d_out, inverse, dx, d_factor, n);
}
FOR_EACH_PROCESSOR void turned(const float *x, const float *cos, const float *sin, float way, float *out, int64_t half) {
  turn_all(x, cos, sin, way, out, half);
}
FOR_EACH_PROCESSOR void turned(const double *x, const double *cos, const double *sin, double way, double *out,
                               int64_t half) {
  turn_all(x, cos, sin, way, out, half);
}

// A run: rows of queries whose keys are those of a parent's rows and then their own.
struct Run {
  int64_t start, length, parent, parent_length;
};

struct Shape {
  int64_t rows, heads, key_heads, width;

  int64_t head_stride() const { return heads * width; }
};

// Some queries of a run, and the keys that any of them sees: a stretch of the parent's and a stretch of the run's own.
struct Block {
  int64_t first, queries;          // own numbers of the queries
  int64_t from_parent, of_parent;  // first of the parent's keys, and how many
  int64_t from_own, of_own;

  Block(const Run &run, int64_t first, int64_t queries, int64_t window) : first(first), queries(queries) {
    // Positions count from the parent's first key.
    const int64_t lowest = window < 1 ? 0 : std::max<int64_t>(0, run.parent_length + first - window + 1);
    from_parent = std::min(lowest, run.parent_length);
    of_parent = run.parent_length - from_parent;
    from_own = std::max<int64_t>(0, lowest - run.parent_length);
    of_own = first + queries - from_own;
  }

  int64_t keys() const { return of_parent + of_own; }
  // Keys that query i of the block sees, as columns.
  int64_t end(int64_t i) const { return keys() - queries + i + 1; }
  int64_t begin(int64_t i, int64_t window) const { return window < 1 ? 0 : std::max<int64_t>(0, end(i) - window); }
};

// Calls `work(first, queries)` for the blocks of a run.
template <class W> void for_blocks(const Run &run, int64_t size, W &&work) {
  for (int64_t first = 0; first < run.length; first += size) work(first, std::min(size, run.length - first));
}

// While it lives, products of this thread are its own work: MKL would start a team for each otherwise, as libtorch has told it
// to mind no regions around it.
struct Alone {
  int before = MKL_Set_Num_Threads_Local == nullptr ? 0 : MKL_Set_Num_Threads_Local(1);

  ~Alone() {
    if (MKL_Set_Num_Threads_Local != nullptr) MKL_Set_Num_Threads_Local(before);
  }
};

// Tasks 0 to `count` on all threads, each taken by the first that is free.
template <class W> void for_tasks(int64_t count, W &&work) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), count);
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    const Alone alone;
    for (int64_t task = next++; task < count; task = next++) work(task);
  });
}

template <class F> std::vector<F> &scratch(int which, size_t size) {
  thread_local std::vector<F> room[2];
  if (room[which].size() < size) room[which].resize(size);
  return room[which];
}

template <class F> Matrix<const F> reading(const Tensor &t, int64_t head) {
  return {t.const_data_ptr<F>() + head * t.stride(1), t.stride(0)};
}

template <class F> Matrix<F> writing(const Tensor &t, int64_t head) {
  return {t.mutable_data_ptr<F>() + head * t.stride(1), t.stride(0)};
}

// Queries of a block: their products with some thousand keys stay in a core's second cache, twice in the backward pass.
constexpr int64_t QUERIES = 64;

template <class F> struct Attention {
  Tensor q, k, v;
  std::vector<Run> runs;
  int64_t window;
  F scale;

  Shape shape() const { return {q.size(0), q.size(1), k.size(1), q.size(2)}; }
  int64_t key_head(int64_t head) const { return head / (q.size(1) / k.size(1)); }

  // Products of a block's queries with its keys.
  void products(const Run &run, const Block &block, Matrix<const F> queries, Matrix<const F> keys, Matrix<F> s) const {
    const int64_t width = q.size(2), parent = run.parent + block.from_parent, own = run.start + block.from_own;
    product<F>(false, true, block.queries, block.of_parent, width, queries, keys.rows(parent), 0, s);
    product<F>(false, true, block.queries, block.of_own, width, queries, keys.rows(own), 0,
               s.columns(block.of_parent));
  }

  // c (+)= s times rows of the keys that a block sees.
  void gather(const Run &run, const Block &block, Matrix<const F> s, Matrix<const F> values, Matrix<F> c) const {
    const int64_t width = q.size(2), parent = run.parent + block.from_parent, own = run.start + block.from_own;
    product<F>(false, false, block.queries, width, block.of_parent, s, values.rows(parent), 0, c);
    product<F>(false, false, block.queries, width, block.of_own, s.columns(block.of_parent), values.rows(own),
               block.of_parent > 0 ? 1 : 0, c);
  }

  // Adds s^T times the block's rows `from` to the rows of the keys that it sees.
  void scatter(const Run &run, const Block &block, Matrix<const F> s, Matrix<const F> from, Matrix<F> sums) const {
    const int64_t width = q.size(2), parent = run.parent + block.from_parent, own = run.start + block.from_own;
    product<F>(true, false, block.of_parent, width, block.queries, s, from, 1, sums.rows(parent));
    product<F>(true, false, block.of_own, width, block.queries, s.columns(block.of_parent), from, 1, sums.rows(own));
  }

  // Zeroes what the block's query i does not see.
  void hide(const Block &block, int64_t i, F *row) const {
    std::fill(row, row + block.begin(i, window), F(0));
    std::fill(row + block.end(i), row + block.keys(), F(0));
  }

  void forward(const Tensor &out, const Tensor &lse) const {
    struct Task {
      size_t run;
      int64_t first, queries, head;
    };
    std::vector<Task> tasks;
    for (size_t run = 0; run < runs.size(); ++run)
      for (int64_t head = 0; head < q.size(1); ++head)
        for_blocks(runs[run], QUERIES, [&](int64_t first, int64_t queries) {
          tasks.push_back({run, first, queries, head});
        });
    for_tasks(tasks.size(), [&](int64_t number) {
      const auto &task = tasks[number];
      const Run &run = runs[task.run];
      const Block block(run, task.first, task.queries, window);
      const int64_t row = run.start + block.first, keys = block.keys();
      const Matrix<F> s{scratch<F>(0, block.queries * keys).data(), keys};
      const auto of_out = writing<F>(out, task.head).rows(row);
      products(run, block, reading<F>(q, task.head).rows(row), reading<F>(k, key_head(task.head)), s);
      std::vector<F> factors(block.queries);
      for (int64_t i = 0; i < block.queries; ++i) {
        F *line = s.data + i * keys, shift;
        const int64_t begin = block.begin(i, window);
        hide(block, i, line);
        const F sum = weigh(line + begin, block.end(i) - begin, scale, &shift);
        factors[i] = 1 / sum;
        lse.mutable_data_ptr<F>()[task.head * q.size(0) + row + i] = shift + std::log(sum);
      }
      gather(run, block, s, reading<F>(v, key_head(task.head)), of_out);
      for (int64_t i = 0; i < block.queries; ++i)
        for (int64_t j = 0; j < q.size(2); ++j) of_out.data[i * of_out.stride + j] *= factors[i];
    });
  }

  // Gradients of queries, and of the keys and values of each query head.
  void backward(const Tensor &out, const Tensor &lse, const Tensor &d_out, const std::vector<std::vector<size_t>> &groups,
                const Tensor &dq, const Tensor &dk, const Tensor &dv) const {
    const int64_t heads = q.size(1);
    for_tasks(groups.size() * heads, [&](int64_t number) {
      const int64_t head = number % heads;
      for (size_t run : groups[number / heads])
        for_blocks(runs[run], QUERIES, [&](int64_t first, int64_t queries) {
          back(runs[run], Block(runs[run], first, queries, window), head, out, lse, d_out, dq, dk, dv);
        });
    });
  }

  void back(const Run &run, const Block &block, int64_t head, const Tensor &out, const Tensor &lse, const Tensor &d_out,
            const Tensor &dq, const Tensor &dk, const Tensor &dv) const {
    const int64_t row = run.start + block.first, keys = block.keys();
    const Matrix<F> s{scratch<F>(0, block.queries * keys).data(), keys};
    const Matrix<F> ds{scratch<F>(1, block.queries * keys).data(), keys};
    const auto queries = reading<F>(q, head).rows(row), d_outs = reading<F>(d_out, head).rows(row);
    const auto outs = reading<F>(out, head).rows(row);
    products(run, block, queries, reading<F>(k, key_head(head)), s);
    products(run, block, d_outs, reading<F>(v, key_head(head)), ds);
    for (int64_t i = 0; i < block.queries; ++i) {
      const int64_t begin = block.begin(i, window), skip = i * keys;
      const F delta = dot(outs.data + i * outs.stride, d_outs.data + i * d_outs.stride, q.size(2));
      hide(block, i, s.data + skip);
      hide(block, i, ds.data + skip);
      weigh_back(s.data + skip + begin, ds.data + skip + begin, block.end(i) - begin, scale,
                 lse.const_data_ptr<F>()[head * q.size(0) + row + i], delta);
    }
    scatter(run, block, s, d_outs, writing<F>(dv, head));
    scatter(run, block, ds, queries, writing<F>(dk, head));
    gather(run, block, ds, reading<F>(k, key_head(head)), writing<F>(dq, head).rows(row));
  }
};

// Runs that share keys, together: those of a group write to rows of no other group.
std::vector<std::vector<size_t>> groups_of(const std::vector<Run> &runs) {
  std::vector<std::vector<size_t>> groups;
  std::vector<size_t> group_of(runs.size());
  for (size_t i = 0; i < runs.size(); ++i) {
    size_t group = groups.size();
    if (runs[i].parent_length > 0)
      for (size_t j = 0; j < i; ++j)
        if (runs[i].parent >= runs[j].start && runs[i].parent < runs[j].start + runs[j].length) group = group_of[j];
    if (group == groups.size()) groups.emplace_back();
    groups[group].push_back(i);
    group_of[i] = group;
  }
  return groups;
}

Tensor in_rows(const Tensor &t) { return t.stride(2) == 1 && t.stride(1) == t.size(2) ? t : t.contiguous(); }

// Keys of query heads that share a key head, added up.
Tensor of_key_heads(const Tensor &gradients, const Tensor &keys) {
  if (gradients.size(1) == keys.size(1)) return gradients;
  return gradients.view({keys.size(0), keys.size(1), -1, keys.size(2)}).sum(2);
}

template <class F>
Attention<F> attention_of(const Tensor &q, const Tensor &k, const Tensor &v, const int64_t *runs, int64_t count,
                          int64_t window, double scale) {
  Attention<F> attention{in_rows(q), in_rows(k), in_rows(v), {}, window, static_cast<F>(scale)};
  for (int64_t i = 0; i < count; ++i)
    attention.runs.push_back({runs[4 * i], runs[4 * i + 1], runs[4 * i + 2], runs[4 * i + 3]});
  return attention;
}

template <class F>
void attend(const Tensor &q, const Tensor &k, const Tensor &v, const int64_t *runs, int64_t count, int64_t window,
            double scale, Tensor **results) {
  const auto attention = attention_of<F>(q, k, v, runs, count, window, scale);
  auto out = at::empty(q.sizes(), q.options()), lse = at::empty({q.size(1), q.size(0)}, q.options());
  attention.forward(out, lse);
  results[0] = new Tensor(out);
  results[1] = new Tensor(lse);
}

template <class F>
void attend_back(Tensor *const *kept, const int64_t *runs, int64_t count, int64_t window, double scale,
                 const Tensor &d_out, Tensor **results) {
  const Tensor &k = *kept[1];
  const auto attention = attention_of<F>(*kept[0], k, *kept[2], runs, count, window, scale);
  auto dq = at::empty(kept[0]->sizes(), kept[0]->options());
  auto dk = at::zeros_like(dq), dv = at::zeros_like(dq);
  attention.backward(*kept[3], *kept[4], in_rows(d_out), groups_of(attention.runs), dq, dk, dv);
  results[0] = new Tensor(dq);
  results[1] = new Tensor(of_key_heads(dk, k));
  results[2] = new Tensor(of_key_heads(dv, k));
}

// Rows `[.., n]`, each in one piece.
struct Lines {
  Tensor tensor;
  int64_t count, width;

  explicit Lines(const Tensor &t)
      : tensor(t.dim() == 2 && t.stride(1) == 1 ? t : t.reshape({-1, t.size(-1)}).contiguous()),
        count(tensor.size(0)), width(tensor.size(1)) {}

  template <class F> const F *row(int64_t i) const { return tensor.const_data_ptr<F>() + i * tensor.stride(0); }
  template <class F> F *writable(int64_t i) const { return tensor.mutable_data_ptr<F>() + i * tensor.stride(0); }
};

// Rows that a thread takes at once, and whose parts of a sum are added up together.
constexpr int64_t ROWS = 32;

template <class W> void for_rows(int64_t count, W &&work) {
  at::parallel_for(0, (count + ROWS - 1) / ROWS, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      for (int64_t row = block * ROWS; row < std::min(count, (block + 1) * ROWS); ++row) work(row, block);
  });
}

template <class F> Tensor gate_of(const Lines &gate, const Lines &up, bool gelu) {
  auto out = at::empty({gate.count, gate.width}, gate.tensor.options());
  const Lines to(out);
  for_rows(gate.count, [&](int64_t row, int64_t) {
    gated(gelu, gate.row<F>(row), up.row<F>(row), to.writable<F>(row), gate.width);
  });
  return out;
}

template <class F> void gate_back_of(const Lines &gate, const Lines &up, bool gelu, const Lines &d_out, Tensor **results) {
  auto d_gate = at::empty({gate.count, gate.width}, gate.tensor.options()), d_up = at::empty_like(d_gate);
  const Lines to_gate(d_gate), to_up(d_up);
  for_rows(gate.count, [&](int64_t row, int64_t) {
    gate_back(gelu, gate.row<F>(row), up.row<F>(row), d_out.row<F>(row), to_gate.writable<F>(row),
              to_up.writable<F>(row), gate.width);
  });
  results[0] = new Tensor(d_gate);
  results[1] = new Tensor(d_up);
}

template <class F> void norm_of(const Tensor &x, const Tensor &factor, double eps, Tensor **results) {
  const Lines from(x);
  auto out = at::empty(x.sizes(), x.options()), inverse = at::empty({from.count}, x.options());
  F *inverses = inverse.mutable_data_ptr<F>(), *to = out.mutable_data_ptr<F>();
  for_rows(from.count, [&](int64_t row, int64_t) {
    inverses[row] =
        normed(from.row<F>(row), factor.const_data_ptr<F>(), to + row * from.width, from.width, static_cast<F>(eps));
  });
  results[0] = new Tensor(out);
  results[1] = new Tensor(inverse);
}

template <class F>
void norm_back_of(const Tensor &x, const Tensor &factor, const Tensor &inverse, const Tensor &gradient, Tensor **results) {
  const Lines from(x), d_out(gradient);
  auto dx = at::empty(x.sizes(), x.options());
  auto parts = at::zeros({(from.count + ROWS - 1) / ROWS, from.width}, x.options());
  F *to = dx.mutable_data_ptr<F>(), *sums = parts.mutable_data_ptr<F>();
  for_rows(from.count, [&](int64_t row, int64_t block) {
    norm_back(from.row<F>(row), factor.const_data_ptr<F>(), d_out.row<F>(row), inverse.const_data_ptr<F>()[row],
              to + row * from.width, sums + block * from.width, from.width);
  });
  results[0] = new Tensor(dx);
  results[1] = new Tensor(parts.sum(0));
}

template <class F> Tensor turn_of(const Tensor &x, const Tensor &cos, const Tensor &sin, double way) {
  const Tensor from = in_rows(x);
  const int64_t heads = x.size(1), width = x.size(2), half = cos.size(-1);
  auto out = at::empty(x.sizes(), x.options());
  for_rows(x.size(0), [&](int64_t row, int64_t) {
    const F *c = cos.const_data_ptr<F>() + row * half, *s = sin.const_data_ptr<F>() + row * half;
    const F *line = from.const_data_ptr<F>() + row * from.stride(0);
    F *to = out.mutable_data_ptr<F>() + row * heads * width;
    for (int64_t head = 0; head < heads; ++head) {
      turned(line + head * width, c, s, static_cast<F>(way), to + head * width, half);
      std::copy(line + head * width + 2 * half, line + (head + 1) * width, to + head * width + 2 * half);
    }
  });
  return out;
}

} // namespace

extern "C" {

// Whether smx_run_attention takes tensors of this kind.
bool smx_has_run_attention(int kind) {
  switch (static_cast<at::ScalarType>(kind)) {
  case at::kFloat: return sgemm_ != nullptr;
  case at::kDouble: return dgemm_ != nullptr;
  default: return false;
  }
}

// Attention of queries `[T, N, D]` over keys and values `[T, K, D]` in runs, four numbers each: first row, rows, the parent's
// first row and its rows. Results: `[T, N, D]`, and the logarithms of the sums of weights `[N, T]`.
void smx_run_attention(Tensor *q, Tensor *k, Tensor *v, const int64_t *runs, int64_t count, int64_t window, double scale,
                       Tensor **results) {
  guarded([&] {
    if (q->scalar_type() == at::kFloat) attend<float>(*q, *k, *v, runs, count, window, scale, results);
    else attend<double>(*q, *k, *v, runs, count, window, scale, results);
  });
}

// Gradients of queries, keys and values; kept are these and the results.
void smx_run_attention_backward(Tensor *const *kept, const int64_t *runs, int64_t count, int64_t window, double scale,
                                Tensor *gradient, Tensor **results) {
  guarded([&] {
    if (kept[0]->scalar_type() == at::kFloat) attend_back<float>(kept, runs, count, window, scale, *gradient, results);
    else attend_back<double>(kept, runs, count, window, scale, *gradient, results);
  });
}

// act(gate) * up of rows `[T, F]`; act is SiLU, or GELU by tanh.
Tensor *smx_gate(Tensor *gate, Tensor *up, bool gelu) {
  return guarded([&] {
    const Lines of_gate(*gate), of_up(*up);
    return new Tensor(gate->scalar_type() == at::kFloat ? gate_of<float>(of_gate, of_up, gelu)
                                                        : gate_of<double>(of_gate, of_up, gelu));
  });
}

void smx_gate_backward(Tensor *gate, Tensor *up, bool gelu, Tensor *gradient, Tensor **results) {
  guarded([&] {
    const Lines of_gate(*gate), of_up(*up), d_out(*gradient);
    if (gate->scalar_type() == at::kFloat) gate_back_of<float>(of_gate, of_up, gelu, d_out, results);
    else gate_back_of<double>(of_gate, of_up, gelu, d_out, results);
  });
}

// Root-mean-square norm of rows `[.., H]` times a factor `[H]`. Results: it, and the rows' inverse roots.
void smx_rms_norm(Tensor *x, Tensor *factor, double eps, Tensor **results) {
  guarded([&] {
    if (x->scalar_type() == at::kFloat) norm_of<float>(*x, *factor, eps, results);
    else norm_of<double>(*x, *factor, eps, results);
  });
}

void smx_rms_norm_backward(Tensor *x, Tensor *factor, Tensor *inverse, Tensor *gradient, Tensor **results) {
  guarded([&] {
    if (x->scalar_type() == at::kFloat) norm_back_of<float>(*x, *factor, *inverse, *gradient, results);
    else norm_back_of<double>(*x, *factor, *inverse, *gradient, results);
  });
}

// `[T, N, D]` with the first 2 R elements of each head turned by angles with cosines and sines `[T, R]`.
Tensor *smx_turn(Tensor *x, Tensor *cos, Tensor *sin, double way) {
  return guarded([&] {
    return new Tensor(x->scalar_type() == at::kFloat ? turn_of<float>(*x, *cos, *sin, way)
                                                     : turn_of<double>(*x, *cos, *sin, way));
  });
}
}
