// The readout of TensorNet and M3GNet: one number per atom, value · σ(gate), from two stacks of dense layers.
#pragma once
#include "panels.h"

namespace {

template <typename T>
INLINE void activate(const T* h, T* out, index_t count) {
  for (index_t k = 0; k < count; k += Lanes<T>::count) store(out + k, silu<T>(load(h + k)));
}
template <typename T>
INLINE void activate_back(const T* h, T* g, index_t count) {
  for (index_t k = 0; k < count; k += Lanes<T>::count) store(g + k, load(g + k) * silu_slope<T>(load(h + k)));
}

// One of the two stacks: h0, h1, h2 keep what comes before each non-linearity; `buffer` is for the widest layer.
template <typename T>
struct Stack {
  index_t width[4];  // of the input and the hidden layers
  const T *w0, *w0t, *b0, *w1, *w1t, *b1, *w2, *w2t, *b2, *last;
  T *h0, *h1, *h2, *buffer;

  INLINE void forward(index_t n, const T* x) {
    dense(n, width[0], width[1], x, w0, h0, b0);
    activate(h0, buffer, n * width[1]);
    dense(n, width[1], width[2], buffer, w1, h1, b1);
    activate(h1, buffer, n * width[2]);
    dense(n, width[2], width[3], buffer, w2, h2, b2);
  }
  // The number of atom j, and in h2 its derivative by h2
  INLINE T number(index_t j) { return silu_row(h2 + j * width[3], last, width[3] / Lanes<T>::count); }
  // From the derivative in h2, times factors that are in it already
  INLINE void backward(index_t n, T* gx, bool add) {
    dense(n, width[3], width[2], h2, w2t, buffer);
    activate_back(h1, buffer, n * width[2]);
    dense(n, width[2], width[1], buffer, w1t, h2);
    activate_back(h0, h2, n * width[1]);
    dense(n, width[1], width[0], h2, w0t, gx, nullptr, add);
  }
};

// Energies of n atoms from their features x, (n, width), and, unless it is null, the gradient by these in gx, which may
// lie where x is. The biases are those of the last layers.
template <typename T>
INLINE void gated_readout(Stack<T>& value, Stack<T>& gate, T value_bias, T gate_bias, index_t n, const T* x,
                          double* energies, T* gx) {
  constexpr index_t L = Lanes<T>::count;
  const index_t last = value.width[3];
  value.forward(n, x);
  gate.forward(n, x);
  for (index_t j = 0; j < n; ++j) {
    const T a = value.number(j) + value_bias, raw = gate.number(j) + gate_bias;
    const T open = T(1) / (T(1) + std::exp(-raw)), slope = a * open * (T(1) - open);
    energies[j] = double(a) * double(open);
    for (index_t f = j * last; f < (j + 1) * last; f += L) {
      store(value.h2 + f, load(value.h2 + f) * open);
      store(gate.h2 + f, load(gate.h2 + f) * slope);
    }
  }
  if (!gx) return;
  value.backward(n, gx, false);
  gate.backward(n, gx, true);
}

}  // namespace
