// PaiNN's message passing with its radial filters, for energies and forces of a trained model on the CPU.
//
// The filter of an edge, w = Σ_k c_k(d) W_k, is made in registers where it is used, so nothing of size edges × features
// is stored. Rows of edges are contiguous (sorted by centre) and the list holds both directions of every pair. That makes
// the backward pass a gather too: the edges that end in atom a are the edges of row a, turned round. So every sum is
// owned by one atom, threads need no locks, and the result does not depend on their number.
#include <cstdint>
#include <thread>
#include <vector>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define DISPATCH __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DISPATCH
#endif
#define INLINE inline __attribute__((always_inline))

using index_t = std::int64_t;

namespace {

// 64 bytes at a time: one AVX-512 register, two of AVX2, four of SSE or NEON; the compiler splits it as needed.
template <typename T> struct Lanes;
template <> struct Lanes<float> { typedef float type __attribute__((vector_size(64), aligned(4))); };
template <> struct Lanes<double> { typedef double type __attribute__((vector_size(64), aligned(8))); };

template <typename T>
struct Problem {
  index_t atoms, features, radial;  // N, F, K
  const index_t *rows, *neighbors;  // rows: N + 1 offsets into the edges
  const T *values, *slopes;         // (E, K): c_k(d) and its derivative
  const T *directions;              // (E, 3)
  const T *weights;                 // (K, 3F), or (K, 2F) without vectors
  const T *x, *mu;                  // (N, 3F) and (N, 3, F), or (N, 2F) and null
  const T *gq, *gm;                 // backward: gradients of the outputs (N, F), (N, 3, F)
  T *q, *m;                         // forward: outputs
  T *gd, *gu, *gx, *gmu;            // backward: gradients of distances (E), directions (E, 3), x, mu
};

template <typename V, typename T> INLINE V load(const T* p) { return *reinterpret_cast<const V*>(p); }
template <typename V, typename T> INLINE void store(T* p, V v) { *reinterpret_cast<V*>(p) = v; }

template <typename T, bool MU, int B>
INLINE void forward_edges(const Problem<T>& p, index_t e, index_t f, typename Lanes<T>::type (&sum)[4]) {
  using V = typename Lanes<T>::type;
  constexpr index_t P = MU ? 3 : 2;
  const index_t F = p.features, K = p.radial;
  V w1[B] = {}, w2[B] = {}, w3[B] = {};
  for (index_t k = 0; k < K; ++k) {
    const T* row = p.weights + k * P * F + f;
    const V a1 = load<V>(row), a2 = load<V>(row + F), a3 = MU ? load<V>(row + 2 * F) : V{};
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b) {
      const T c = p.values[(e + b) * K + k];
      w1[b] += c * a1;
      w2[b] += c * a2;
      if (MU) w3[b] += c * a3;
    }
  }
#pragma GCC unroll 4
  for (int b = 0; b < B; ++b) {
    const index_t j = p.neighbors[e + b];
    const T *x = p.x + j * P * F + f, *u = p.directions + 3 * (e + b);
    const V t = w2[b] * load<V>(x + F);
    sum[0] += w1[b] * load<V>(x);
    sum[1] += t * u[0];
    sum[2] += t * u[1];
    sum[3] += t * u[2];
    if (MU) {
      const T* mu = p.mu + 3 * j * F + f;
      const V s = w3[b] * load<V>(x + 2 * F);
      sum[1] += s * load<V>(mu);
      sum[2] += s * load<V>(mu + F);
      sum[3] += s * load<V>(mu + 2 * F);
    }
  }
}

template <typename T, bool MU>
INLINE void forward_atoms(const Problem<T>& p, index_t first, index_t last) {
  using V = typename Lanes<T>::type;
  constexpr index_t L = 64 / sizeof(T);
  const index_t F = p.features;
  for (index_t i = first; i < last; ++i) {
    for (index_t f = 0; f < F; f += L) {
      V sum[4] = {};
      index_t e = p.rows[i];
      for (; e + 4 <= p.rows[i + 1]; e += 4) forward_edges<T, MU, 4>(p, e, f, sum);
      for (; e < p.rows[i + 1]; ++e) forward_edges<T, MU, 1>(p, e, f, sum);
      store(p.q + i * F + f, sum[0]);
      for (int a = 0; a < 3; ++a) store(p.m + (3 * i + a) * F + f, sum[a + 1]);
    }
  }
}

template <typename T, bool MU, int B>
INLINE void backward_edges(const Problem<T>& p, index_t a, index_t e) {
  using V = typename Lanes<T>::type;
  constexpr index_t P = MU ? 3 : 2, L = 64 / sizeof(T);
  const index_t F = p.features, K = p.radial;
  V sd[B] = {}, sx[B] = {}, sy[B] = {}, sz[B] = {};
  for (index_t f = 0; f < F; f += L) {
    V w1[B] = {}, w2[B] = {}, w3[B] = {}, s1[B] = {}, s2[B] = {}, s3[B] = {};
    for (index_t k = 0; k < K; ++k) {
      const T* row = p.weights + k * P * F + f;
      const V a1 = load<V>(row), a2 = load<V>(row + F), a3 = MU ? load<V>(row + 2 * F) : V{};
#pragma GCC unroll 2
      for (int b = 0; b < B; ++b) {
        const T c = p.values[(e + b) * K + k], d = p.slopes[(e + b) * K + k];
        w1[b] += c * a1;
        w2[b] += c * a2;
        s1[b] += d * a1;
        s2[b] += d * a2;
        if (MU) {
          w3[b] += c * a3;
          s3[b] += d * a3;
        }
      }
    }
    const T* x = p.x + a * P * F + f;
    T* gx = p.gx + a * P * F + f;
    const V x1 = load<V>(x), x2 = load<V>(x + F), x3 = MU ? load<V>(x + 2 * F) : V{};
    V g1 = load<V>(gx), g2 = load<V>(gx + F), g3 = MU ? load<V>(gx + 2 * F) : V{};
#pragma GCC unroll 2
    for (int b = 0; b < B; ++b) {
      const index_t i = p.neighbors[e + b];  // the centre of the edge turned round
      const T *u = p.directions + 3 * (e + b), *gm = p.gm + 3 * i * F + f;
      const V q = load<V>(p.gq + i * F + f), ax = load<V>(gm), ay = load<V>(gm + F), az = load<V>(gm + 2 * F);
      const V ug = -(u[0] * ax + u[1] * ay + u[2] * az), t = w2[b] * x2;
      g1 += w1[b] * q;
      g2 += w2[b] * ug;
      sd[b] += s1[b] * (x1 * q) + s2[b] * (x2 * ug);
      sx[b] += t * ax;
      sy[b] += t * ay;
      sz[b] += t * az;
      if (MU) {
        const T* mu = p.mu + 3 * a * F + f;
        T* gmu = p.gmu + 3 * a * F + f;
        const V mg = load<V>(mu) * ax + load<V>(mu + F) * ay + load<V>(mu + 2 * F) * az, s = w3[b] * x3;
        g3 += w3[b] * mg;
        sd[b] += s3[b] * (x3 * mg);
        store(gmu, load<V>(gmu) + s * ax);
        store(gmu + F, load<V>(gmu + F) + s * ay);
        store(gmu + 2 * F, load<V>(gmu + 2 * F) + s * az);
      }
    }
    store(gx, g1);
    store(gx + F, g2);
    if (MU) store(gx + 2 * F, g3);
  }
  for (int b = 0; b < B; ++b) {
    T d = 0, ux = 0, uy = 0, uz = 0;
    for (index_t l = 0; l < L; ++l) {
      d += sd[b][l];
      ux -= sx[b][l];
      uy -= sy[b][l];
      uz -= sz[b][l];
    }
    p.gd[e + b] = d;
    p.gu[3 * (e + b)] = ux;
    p.gu[3 * (e + b) + 1] = uy;
    p.gu[3 * (e + b) + 2] = uz;
  }
}

template <typename T, bool MU>
INLINE void backward_atoms(const Problem<T>& p, index_t first, index_t last) {
  for (index_t a = first; a < last; ++a) {
    index_t e = p.rows[a];
    for (; e + 2 <= p.rows[a + 1]; e += 2) backward_edges<T, MU, 2>(p, a, e);
    for (; e < p.rows[a + 1]; ++e) backward_edges<T, MU, 1>(p, a, e);
  }
}

// Starting a thread costs about 20 µs, so small systems stay on the caller's.
template <typename Work>
void share(const index_t* rows, index_t atoms, index_t threads, Work work) {
  const index_t edges = rows[atoms];
  if (threads < 2 || edges < 4000) return work(0, atoms);
  std::vector<std::thread> pool;
  index_t first = 0;
  for (index_t t = 1; t <= threads; ++t) {
    index_t last = first;
    while (last < atoms && rows[last] < edges * t / threads) ++last;
    if (t == threads) last = atoms;
    if (t < threads) pool.emplace_back(work, first, last);
    else work(first, last);
    first = last;
  }
  for (auto& thread : pool) thread.join();
}

}  // namespace

#define EXPORT(T, S)                                                                                                   \
  DISPATCH void forward_range_##S(const Problem<T>& p, index_t first, index_t last) {                                  \
    if (p.mu) forward_atoms<T, true>(p, first, last);                                                                  \
    else forward_atoms<T, false>(p, first, last);                                                                      \
  }                                                                                                                    \
  DISPATCH void backward_range_##S(const Problem<T>& p, index_t first, index_t last) {                                 \
    if (p.mu) backward_atoms<T, true>(p, first, last);                                                                 \
    else backward_atoms<T, false>(p, first, last);                                                                     \
  }                                                                                                                    \
  extern "C" void convolution_forward_##S(index_t threads, index_t N, index_t F, index_t K, const index_t* rows,       \
                                          const index_t* nj, const T* values, const T* u, const T* w, const T* x,      \
                                          const T* mu, T* q, T* m) {                                                   \
    Problem<T> p{N, F, K, rows, nj, values, nullptr, u, w, x, mu, nullptr, nullptr, q, m, nullptr, nullptr, nullptr,   \
                 nullptr};                                                                                             \
    share(rows, N, threads, [&p](index_t a, index_t b) { forward_range_##S(p, a, b); });                               \
  }                                                                                                                    \
  extern "C" void convolution_backward_##S(index_t threads, index_t N, index_t F, index_t K, const index_t* rows,      \
                                           const index_t* nj, const T* values, const T* slopes, const T* u,            \
                                           const T* w, const T* x, const T* mu, const T* gq, const T* gm, T* gd,       \
                                           T* gu, T* gx, T* gmu) {                                                     \
    Problem<T> p{N, F, K, rows, nj, values, slopes, u, w, x, mu, gq, gm, nullptr, nullptr, gd, gu, gx, gmu};           \
    share(rows, N, threads, [&p](index_t a, index_t b) { backward_range_##S(p, a, b); });                              \
  }

EXPORT(float, f32)
EXPORT(double, f64)
