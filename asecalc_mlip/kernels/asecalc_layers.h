// A network layer by layer: the contract for domains that know only their own atoms and one cutoff of ghosts.
//
// A domain has `graph.atoms` own atoms, numbered from 0, and after them `graph.ghosts` copies of atoms that others own
// (periodic images of its own among them). Only own atoms have rows; their neighbours may be ghosts. `numbers` covers
// both, rows, neighbors and vectors are as ever: sorted by centre, every pair in both directions among the rows of all
// domains together. With no ghosts this is the graph of the calculator, so one implementation serves both: `evaluate`
// runs the steps one after another, and a pair style does the same with an exchange between them.
//
//     for (s = 0; s < steps; ++s) {
//       NAME_step(network, graph, buffer, energies, gradient, s, &after);   // own atoms only
//       exchange(after);                                                    // nothing after the last step
//     }
//
// A step reads the arrays of the steps before it, at own atoms and, where the exchange after an earlier step filled them,
// at ghosts; it writes rows of own atoms. FORWARD: rows of own atoms are copied to their ghosts. REVERSE: rows of ghosts
// are added to those of their owners (an implementation that scatters needs it; it zeroes the rows of ghosts itself).
//
// Both passes are gathers, so FORWARD is enough. Forward: atom i sums over its row what the neighbours send (PaiNN: x and
// μ; TensorNet: Y; SchNet: x), so the senders' rows are exchanged before. Backward: the edges that end in own atom a are
// the edges of row a turned round, so ∂E/∂(what a sent) is a sum over row a of what the listeners pass back (PaiNN: gq and
// gm; TensorNet: gm; SchNet: gy), and those rows are exchanged before. Embeddings and a first block that sends a function
// of the element alone need no exchange: `numbers` has the ghosts' elements. An EAM or a core is one step.
//
// Steps of PaiNN with three blocks (k = 0, 1, 2), and what is exchanged after each, in numbers per atom:
//     PREPARE, MESSAGES 0 of own and ghosts, CONVOLVE 0, MESSAGES 1 → x, μ 6 F
//     CONVOLVE 1, MESSAGES 2                                        → x, μ 6 F
//     CONVOLVE 2, READ_OUT, MIX_BACK 2                              → gq, gm 4 F
//     CONVOLVE_BACK 2, MESSAGES_BACK 2, MIX_BACK 1                  → gq, gm 4 F
//     CONVOLVE_BACK 1, MESSAGES_BACK 1, MIX_BACK 0                  → gq, gm 4 F (none if block 0 differentiates its
//     CONVOLVE_BACK 0, GRADIENT                                        edges from the side of the centre)
// and of TensorNet with two: EMBED, PROJECT 0 → Y 9 F; CONVOLVE 0, PROJECT 1 → Y 9 F; CONVOLVE 1, READ_OUT, UPDATE_BACK 1
// → gm 9 F; GATHER_BACK 1, UPDATE_BACK 0 → gm 9 F; GATHER_BACK 0, EMBED_BACK. Own-feature messages exchange nothing.
//
// The buffer belongs to the caller, holds NAME_workspace numbers of the dtype and is left alone between the steps of one
// evaluation: a step finds its arrays in it by laying it out anew, and keeps no state elsewhere. Arrays that are exchanged
// have atoms + ghosts rows, one after another, own atoms first. A step must do with no atoms and no edges.
//
// energies: (atoms), complete after the last forward step. gradient: (edges, 3), complete after the last step: what the
// row's own and its turned edges contribute to ∂E/∂vector. Row i, neighbour j: F_i += g, F_j −= g, also where j is a ghost
// (its force goes to its owner as LAMMPS does with newton on); virial −= v ⊗ g. Every directed edge of the whole system
// counts once, so the sum over domains is exact.
#pragma once
#include "asecalc_kernels.h"

constexpr index_t ASECALC_PIECES = 4;

struct Exchange {
  index_t direction;               // NOTHING, FORWARD or REVERSE
  index_t pieces;                  // arrays that take part
  index_t width[ASECALC_PIECES];   // numbers per atom of each, a multiple of 16
  void* rows[ASECALC_PIECES];      // (atoms + ghosts, width), in the dtype of the step
};

enum : index_t { NOTHING = 0, FORWARD = 1, REVERSE = -1 };

// The functions of a kernel NAME, which defines
//   template <typename T> index_t steps(const Network<T>&, bool derivative);   without the derivative: the forward steps
//   template <typename T> index_t exchanged(const Network<T>&);                largest Σ width of its exchanges
//   template <typename T> void step(const Network<T>&, const Graph&, T* buffer, double* energies, double* gradient,
//                                   index_t s, Exchange& after);                `after` comes in as NOTHING
// with T = float and double. They are
//   NAME_steps(network)      steps of energy and gradient
//   NAME_exchanged(network)  numbers of the dtype per atom that the largest exchange carries; 0: none has any
//   NAME_step_f32(network, graph, buffer, energies, gradient, s, exchange)   f64 likewise
// and `evaluate` of asecalc_kernels.h is run_steps. A kernel that gets these functions raises ASECALC_ABI to 3 (and ABI in
// library.py): libraries of version 2 have none of them.
#define ASECALC_LAYERS(NAME)                                                                                \
  ASECALC_EXPORT index_t NAME##_steps(const void* network) {                                                \
    return steps<float>(*static_cast<const Network<float>*>(network), true);                                \
  }                                                                                                         \
  ASECALC_EXPORT index_t NAME##_exchanged(const void* network) {                                            \
    return exchanged<float>(*static_cast<const Network<float>*>(network));                                  \
  }
#define ASECALC_STEP(NAME, T, SUFFIX)                                                                       \
  ASECALC_EXPORT void NAME##_step_##SUFFIX(const void* network, const Graph* graph, T* buffer,              \
                                           double* energies, double* gradient, index_t s, Exchange* after) { \
    *after = Exchange{};                                                                                    \
    step<T>(*static_cast<const Network<T>*>(network), *graph, buffer, energies, gradient, s, *after);       \
  }

// What `evaluate` does: there are no ghosts, so nothing is exchanged.
#define ASECALC_RUN_STEPS                                                                                   \
  template <typename T>                                                                                     \
  void evaluate(const Network<T>& net, const Graph& graph, T* buffer, double* energies, double* gradient) { \
    const index_t count = steps<T>(net, gradient != nullptr);                                               \
    for (index_t s = 0; s < count; ++s) {                                                                   \
      Exchange none{};                                                                                      \
      step<T>(net, graph, buffer, energies, gradient, s, none);                                             \
    }                                                                                                       \
  }
