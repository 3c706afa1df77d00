// The contract between the native library and the package that opens it through ctypes.
//
// All kernels share this file; its other side is library.py. The weights of a network are a struct of its own, named
// `Network` in NAME.cpp, whose other side, field by field, is in models/NAME.py (tests/kernels/test_contract.py compares
// them). Whoever changes a struct or the arguments of a function raises ASECALC_ABI here and ABI in library.py, so that
// a library from before the change is refused instead of read wrongly.
#pragma once
#include <cstdint>

#define ASECALC_ABI 6

// One build serves every x86-64 machine: the loader picks the clone for the processor at hand.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define DISPATCH __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DISPATCH
#endif

#define INLINE inline __attribute__((always_inline))

#if defined(_WIN32)
#define ASECALC_EXPORT extern "C" __declspec(dllexport)
#else
#define ASECALC_EXPORT extern "C"
#endif

using index_t = std::int64_t;

// Structures and their neighbour lists, as asecalc_mlip.graph has them; threads is how many may share the work.
struct Graph {
  index_t atoms, edges, threads;
  const index_t *rows;       // (atoms + 1): the edges of atom i are rows[i] … rows[i + 1] − 1
  const index_t *neighbors;  // (edges): atom at the other end
  const index_t *numbers;    // (atoms + ghosts): atomic numbers
  const double *vectors;     // (edges, 3): from the atom to its neighbour, Å
  index_t ghosts;            // copies of atoms of other domains, after the own ones; see asecalc_layers.h
};

// The functions of a kernel NAME, which defines template <typename T> struct Network, workspace and evaluate:
//   NAME_network_bytes()                                      size of Network, to compare with the other side
//   NAME_workspace(network, graph)                            numbers of the dtype that evaluate needs as a buffer
//   NAME_evaluate_f32(network, graph, buffer, energies, gradient)   f64 likewise
// energies: (atoms) of the network's output; gradient: (edges, 3) of its sum by the vectors, or null.
#define ASECALC_KERNEL(NAME)                                                                           \
  ASECALC_EXPORT index_t NAME##_network_bytes() { return index_t(sizeof(Network<float>)); }            \
  ASECALC_EXPORT index_t NAME##_workspace(const void* network, const Graph* graph) {                   \
    return workspace(*static_cast<const Network<float>*>(network), *graph);                            \
  }
#define ASECALC_EVALUATE(NAME, T, SUFFIX)                                                              \
  ASECALC_EXPORT void NAME##_evaluate_##SUFFIX(const void* network, const Graph* graph, T* buffer,     \
                                               double* energies, double* gradient) {                   \
    evaluate<T>(*static_cast<const Network<T>*>(network), *graph, buffer, energies, gradient);         \
  }
