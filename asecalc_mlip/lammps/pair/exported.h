// The plain file of a model, as asecalc_mlip/lammps/export.py writes it, and a domain that runs it step by step.
//
// It knows no architecture: a network is a block of bytes whose addresses are put in here, and its functions are found
// in the library of kernels by their names. It knows nothing of LAMMPS either.
#pragma once
#include "asecalc_layers.h"

#include <dlfcn.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace asecalc {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// --- kernels --------------------------------------------------------------------------------------------------------

struct Kernel {
  index_t (*steps)(const void*);
  index_t (*exchanged)(const void*);
  index_t (*workspace)(const void*, const Graph*);
  void (*step)(const void*, const Graph*, void*, double*, double*, index_t, Exchange*);
};

template <typename Function>
void find(void* library, const std::string& name, Function& function) {
  void* found = dlsym(library, name.c_str());
  if (!found) throw Failure("the library of kernels has no function " + name + "; install asecalc-mlip again");
  std::memcpy(&function, &found, sizeof found);
}

inline Kernel kernel_of(void* library, const std::string& name, bool wide, index_t bytes) {
  Kernel k;
  index_t (*size)();
  find(library, name + "_network_bytes", size);
  if (size() != bytes)
    throw Failure("the model was exported for other kernels than those of the pair style; export it again");
  find(library, name + "_steps", k.steps);
  find(library, name + "_exchanged", k.exchanged);
  find(library, name + "_workspace", k.workspace);
  find(library, name + (wide ? "_step_f64" : "_step_f32"), k.step);
  return k;
}

// --- the file -------------------------------------------------------------------------------------------------------

constexpr char MAGIC[9] = "ASECALC\n";
constexpr index_t VERSION = 2, ALIGNED = 64;

struct Part {
  std::string kernel;
  bool trims;
  double cutoff, scale;
  std::vector<double> e0;                         // by element
  std::vector<std::vector<char>> images;          // the network, and its blocks
  Kernel functions;
  const void* network() const { return images[0].data(); }
};

struct Model {
  std::string name, digest, dtype, architecture, version;
  std::vector<index_t> numbers;
  std::vector<std::string> elements;
  std::vector<double> radii;                      // covalent, Å
  std::vector<double> closest;                    // of each pair of elements in the training data, Å; 0: not known
  std::vector<Part> parts;
  std::unique_ptr<char[]> memory;                 // the payload, in which the tensors stay
  index_t width() const { return dtype == "float64" ? 8 : 4; }
  double cutoff() const {
    double longest = 0;
    for (const Part& part : parts) longest = std::fmax(longest, part.cutoff);
    return longest;
  }
};

class Reader {
 public:
  Reader(char* data, index_t size) : data_(data), size_(size) {}
  char* take(index_t count, index_t alignment) {
    if (count < 0 || count > size_ - at_) throw Failure("it is cut off");
    char* piece = data_ + at_;
    at_ += count;
    align(alignment);
    return piece;
  }
  void align(index_t alignment) {
    at_ = (at_ + alignment - 1) / alignment * alignment;
    if (at_ > size_) at_ = size_;
  }
  template <typename V>
  V one() {
    V value;
    std::memcpy(&value, take(sizeof(V), 1), sizeof(V));
    return value;
  }
  index_t integer() { return one<index_t>(); }
  index_t count(index_t most) {
    const index_t n = integer();
    if (n < 0 || n > most) throw Failure("it holds a number that makes no sense");
    return n;
  }
  std::string text() {
    const index_t n = count(4096);
    const char* from = take(n, 8);
    return std::string(from, size_t(n));
  }

 private:
  char* data_;
  index_t size_, at_ = 0;
};

inline void read_network(Reader& in, Part& part) {
  std::vector<char*> tensors(size_t(in.count(100000)));
  for (char*& tensor : tensors) {
    const index_t bytes = in.integer();
    in.align(ALIGNED);
    tensor = in.take(bytes, ALIGNED);
  }
  part.images.resize(size_t(in.count(2)));
  if (part.images.empty()) throw Failure("it holds no network");
  std::vector<std::pair<size_t, index_t>> blocks;
  for (size_t k = 0; k < part.images.size(); ++k) {
    const index_t bytes = in.count(1 << 24);
    const char* from = in.take(bytes, 8);
    part.images[k].assign(from, from + bytes);
    for (index_t n = in.count(1 << 20); n > 0; --n) {
      const index_t at = in.integer(), which = in.integer();
      if (at < 0 || at > bytes - 8 || which < -1 || which >= index_t(tensors.size()))
        throw Failure("it holds an address that makes no sense");
      if (which < 0) blocks.push_back({k, at});
      else std::memcpy(part.images[k].data() + at, &tensors[size_t(which)], 8);
    }
  }
  for (const auto& [k, at] : blocks) {
    if (part.images.size() < 2) throw Failure("it holds a network without its blocks");
    const char* first = part.images[1].data();
    std::memcpy(part.images[k].data() + at, &first, 8);
  }
}

inline bool is_plain(const char* data, index_t size) { return size >= 40 && !std::memcmp(data, MAGIC, 8); }

inline std::uint64_t fnv1a(const char* data, index_t size) {
  std::uint64_t value = 0xCBF29CE484222325u;
  for (index_t at = 0; at < size; at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, data + at, size_t(size - at < 8 ? size - at : 8));
    value = (value ^ word) * 0x100000001B3u;
  }
  return value;
}

// Throws a Failure whose message goes on after the name of the file.
inline Model read_model(const char* data, index_t size, void* library) {
  if (!is_plain(data, size)) throw Failure("it is no exported model");
  Reader header(const_cast<char*>(data) + 8, 32);
  const index_t version = header.integer(), abi = header.integer(), bytes = header.integer();
  const std::uint64_t sum = header.one<std::uint64_t>();
  if (version != VERSION || abi != ASECALC_ABI)
    throw Failure("it was exported by another version of asecalc-mlip; export it again");
  if (bytes != size - 40) throw Failure("it is cut off");
  if (fnv1a(data + 40, bytes) != sum) throw Failure("it is damaged: its checksum does not fit; export it again");
  Model model;
  // Tensors begin where registers like to read.
  model.memory.reset(new char[size_t(bytes + ALIGNED)]);
  char* start = model.memory.get();
  start += (ALIGNED - index_t(reinterpret_cast<std::uintptr_t>(start) % ALIGNED)) % ALIGNED;
  std::memcpy(start, data + 40, size_t(bytes));
  Reader in(start, bytes);
  for (std::string* text : {&model.name, &model.digest, &model.dtype, &model.architecture, &model.version})
    *text = in.text();
  model.numbers.resize(size_t(in.count(200)));
  for (index_t& number : model.numbers) number = in.count(200);
  for (size_t k = 0; k < model.numbers.size(); ++k) model.elements.push_back(in.text()), model.radii.push_back(in.one<double>());
  model.closest.resize(model.numbers.size() * model.numbers.size());
  for (double& distance : model.closest) distance = in.one<double>();
  model.parts.resize(size_t(in.count(100)));
  for (Part& part : model.parts) {
    part.kernel = in.text();
    part.trims = in.integer() != 0;
    part.cutoff = in.one<double>(), part.scale = in.one<double>();
    part.e0.resize(model.numbers.size());
    for (double& energy : part.e0) energy = in.one<double>();
    read_network(in, part);
    part.functions = kernel_of(library, part.kernel, model.dtype == "float64", index_t(part.images[0].size()));
  }
  if (model.parts.empty() || model.numbers.empty()) throw Failure("it holds no network");
  return model;
}

// --- a domain -------------------------------------------------------------------------------------------------------

// Buffer of one part, kept from step to step. It grows by an eighth more than is needed, as edges come and go.
class Space {
 public:
  void* of(index_t bytes) {
    if (bytes > size_) {
      size_ = bytes + bytes / 8;
      memory_.reset();
      memory_.reset(new char[size_t(size_ + ALIGNED)]);
    }
    char* start = memory_.get();
    return start ? start + (ALIGNED - index_t(reinterpret_cast<std::uintptr_t>(start) % ALIGNED)) % ALIGNED : start;
  }
  index_t bytes() const { return size_; }

 private:
  std::unique_ptr<char[]> memory_;
  index_t size_ = 0;
};

// One part for the atoms of a domain: energies of own atoms and gradients of their edges, without scale and E0.
template <typename Between>
void run_part(const Part& part, const Model& model, const Graph& graph, Space& space, double* energies, double* gradient,
              Between between) {
  const Kernel& k = part.functions;
  void* buffer = space.of(k.workspace(part.network(), &graph) * model.width());
  const index_t steps = k.steps(part.network());
  for (index_t s = 0; s < steps; ++s) {
    Exchange after;
    k.step(part.network(), &graph, buffer, energies, gradient, s, &after);
    if (after.direction != NOTHING) between(after);
  }
}

// What a part says of an atom of each element alone.
inline std::vector<double> alone(const Part& part, const Model& model) {
  const index_t n = index_t(model.numbers.size());
  std::vector<index_t> rows(size_t(n + 1), 0);
  std::vector<double> energies(size_t(n), 0.0);
  double nothing = 0;
  index_t none = 0;
  Graph graph{n, 0, 1, rows.data(), &none, model.numbers.data(), &nothing, 0};
  Space space;
  run_part(part, model, graph, space, energies.data(), &nothing, [](const Exchange&) {});
  return energies;
}

}  // namespace asecalc
