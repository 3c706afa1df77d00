/* ----------------------------------------------------------------------
   pair_style asecalc: models of asecalc-mlip in LAMMPS, over MPI

   Copyright (C) 2026 asecalc-mlip contributors

   This file includes headers of LAMMPS (https://www.lammps.org), which is
   distributed under the GNU General Public License, version 2. So is this
   file, and this file alone:

   This program is free software; you can redistribute it and/or modify it
   under the terms of the GNU General Public License, version 2, as published
   by the Free Software Foundation. It is distributed in the hope that it will
   be useful, but WITHOUT ANY WARRANTY; without even the implied warranty of
   MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE. See the GNU General
   Public License for more details:
   https://www.gnu.org/licenses/old-licenses/gpl-2.0.html
   SPDX-License-Identifier: GPL-2.0-only
------------------------------------------------------------------------- */

// Each rank has its own atoms and ghosts one cutoff deep. A network runs in steps; between them LAMMPS copies what
// neighbours read from the owners of atoms to their ghosts (asecalc_layers.h has the cycle). Forces on ghosts go back to
// their owners as for every pair style with newton on.

#include "exported.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "lammps.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "pair.h"
#include "update.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

using namespace LAMMPS_NS;

// The build says which kernels and which Python belong to this plugin; without, they are in the plugin itself and in PATH.
#ifndef ASECALC_KERNELS
#define ASECALC_KERNELS ""
#endif
#ifndef ASECALC_PYTHON
#define ASECALC_PYTHON "python3"
#endif
// The version of the headers: a number such as 20250722 from the build, or the date in the sources of LAMMPS.
#ifdef ASECALC_LAMMPS
#define ASECALC_TEXT_OF(number) #number
#define ASECALC_TEXT(number) ASECALC_TEXT_OF(number)
#define ASECALC_HEADERS ASECALC_TEXT(ASECALC_LAMMPS)
#elif __has_include("version.h")
#include "version.h"
#define ASECALC_HEADERS LAMMPS_VERSION
#else
#error "define ASECALC_LAMMPS, the number of the version of LAMMPS whose headers these are, such as 20250722"
#endif
#ifndef ASECALC_VERSION
#define ASECALC_VERSION "of its own build"
#endif

namespace {

void* kernels() {
  static void* opened = nullptr;
  if (opened) return opened;
  std::string path = ASECALC_KERNELS;
  if (const char* given = std::getenv("ASECALC_KERNELS")) path = given;
  if (path.empty()) {
    Dl_info here;
    if (dladdr(reinterpret_cast<void*>(&kernels), &here) && here.dli_fname) path = here.dli_fname;
  }
  opened = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!opened) throw asecalc::Failure(std::string("the library of kernels does not load: ") + dlerror());
  index_t (*abi)();
  asecalc::find(opened, "asecalc_abi", abi);
  if (abi() == ASECALC_ABI) return opened;
  opened = nullptr;
  throw asecalc::Failure(path + " is not of the version of this plugin; install asecalc-mlip again");
}

// The plain file of a .pt, made by Python if it is not in the cache. One rank calls this.
std::string exported(const std::string& model, const std::string& dtype) {
  std::string quoted;
  for (const char c : model) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  const char* python = std::getenv("ASECALC_PYTHON");
  const std::string command = std::string("'") + (python ? python : ASECALC_PYTHON) +
                              "' -m asecalc_mlip.cli lammps export '" + quoted + "' --dtype " + dtype + " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  std::string said, last;
  char line[4096];
  while (pipe && std::fgets(line, sizeof line, pipe)) said += last = line;
  if (pipe && pclose(pipe) == 0 && !last.empty()) return last.substr(0, last.find('\n'));
  const size_t error = said.rfind("Error: ");
  if (error != std::string::npos) throw asecalc::Failure(said.substr(error + 7));
  throw asecalc::Failure("it is no exported model, and Python could not export it (" + command + "): " + said +
                         "\nExport it where Python has asecalc-mlip: asecalc lammps export " + model +
                         " -o FILE, and name that file in pair_coeff");
}

std::vector<char> content_of(const std::string& path) {
  FILE* file = std::fopen(path.c_str(), "rb");
  if (!file) throw asecalc::Failure("there is no such file, or it cannot be read");
  std::vector<char> content;
  std::fseek(file, 0, SEEK_END);
  const long size = std::ftell(file);
  std::rewind(file);
  content.resize(size > 0 ? size_t(size) : 0);
  const size_t got = content.empty() ? 0 : std::fread(content.data(), 1, content.size(), file);
  std::fclose(file);
  content.resize(got);
  return content;
}

// A file that is no plain one is a .pt, or the name of a shipped model, which need not be here.
std::vector<char> plain_content(const std::string& name, const std::string& dtype) {
  std::vector<char> content;
  if (FILE* file = std::fopen(name.c_str(), "rb")) {
    std::fclose(file);
    content = content_of(name);
  }
  if (asecalc::is_plain(content.data(), index_t(content.size()))) return content;
  return content_of(exported(name, dtype));
}

// What LAMMPS' list holds of one cutoff: rows of own atoms in order.
struct Rows {
  double cutoff = 0;
  std::vector<index_t> rows, neighbors;
  std::vector<double> vectors;
};

}  // namespace

class PairAsecalc : public Pair {
 public:
  explicit PairAsecalc(LAMMPS*);
  ~PairAsecalc() override;
  void compute(int, int) override;
  void settings(int, char**) override;
  void coeff(int, char**) override;
  void init_style() override;
  double init_one(int, int) override;
  int pack_forward_comm(int, int*, double*, int, int*) override;
  void unpack_forward_comm(int, int, double*) override;
  int pack_reverse_comm(int, int, double*) override;
  void unpack_reverse_comm(int, int*, double*) override;
  double memory_usage() override;

 private:
  void allocate();
  void read(const std::string&);
  void find_numbers();
  void find_rows(Rows&);
  void run(const asecalc::Part&, size_t);
  void tally(const Rows&, double);
  void find_closest();
  void exchange(const Exchange&);
  int exchange_size() const;
  template <typename T> void add_rows(int, const int*, const double*);

  asecalc::Model model;
  std::vector<std::vector<double>> shifts;    // of each part, by element: E0 less what the network says of an atom alone
  std::vector<int> element;                   // of each type, or −1
  std::vector<index_t> numbers;               // of own atoms and ghosts
  std::vector<int> of_atom;                   // element of own atoms, −1: not ours
  std::vector<double> energies, gradient;
  std::vector<Rows> lists;                    // one for each cutoff that is needed
  std::vector<size_t> list_of;                // of each part
  std::vector<asecalc::Space> spaces;
  Exchange now{};                             // what the packing functions move
  std::string dtype = "float32";
  int threads = 1;
  double total = 0;
};

PairAsecalc::PairAsecalc(LAMMPS* lmp) : Pair(lmp) {
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  single_enable = 0;
  no_virial_fdotr_compute = 1;
  nextra = 3;    // of compute pair: closest approach in Å, as a share of covalent radii, and of that in the training data
  pvector = new double[3]();
  centroidstressflag = CENTROID_NOTAVAIL;
  unit_convert_flag = 0;
}

PairAsecalc::~PairAsecalc() {
  delete[] pvector;
  if (copymode || !allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
}

void PairAsecalc::allocate() {
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  map = new int[n];
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) setflag[i][j] = 0;
  allocated = 1;
}

// pair_style asecalc [float32|float64] [threads N]
void PairAsecalc::settings(int narg, char** arg) {
  for (int k = 0; k < narg; ++k) {
    const std::string word = arg[k];
    if (word == "float32" || word == "float64") {
      dtype = word;
    } else if (word == "threads" && k + 1 < narg && std::atoi(arg[k + 1]) > 0) {
      threads = std::atoi(arg[++k]);
    } else {
      error->all(FLERR, "pair_style asecalc: " + word + " is not allowed here; expected float32 or float64, and threads N");
    }
  }
}

// pair_coeff * * FILE Si O ...: the elements of types 1, 2 …; NULL: a type that belongs to another style of a hybrid
void PairAsecalc::coeff(int narg, char** arg) {
  if (!allocated) allocate();
  if (narg != 3 + atom->ntypes || std::strcmp(arg[0], "*") || std::strcmp(arg[1], "*"))
    error->all(FLERR, "pair_coeff of asecalc needs: * * MODEL and the element of each of the " +
                          std::to_string(atom->ntypes) + " atom types, or NULL");
  read(arg[2]);
  element.assign(size_t(atom->ntypes + 1), -1);
  for (int type = 1; type <= atom->ntypes; ++type) {
    const std::string symbol = arg[2 + type];
    if (symbol == "NULL") continue;
    for (size_t k = 0; k < model.elements.size(); ++k)
      if (model.elements[k] == symbol) element[size_t(type)] = int(k);
    if (element[size_t(type)] >= 0) continue;
    std::string known;
    for (const auto& one : model.elements) known += (known.empty() ? "" : ", ") + one;
    error->all(FLERR, std::string(arg[2]) + ": the model does not know " + symbol + "; it knows " + known);
  }
  // Pair::map_element2type sets these, too, and no more.
  map_element2type(narg - 3, arg + 3);
}

// Rank 0 reads, and all get the content.
void PairAsecalc::read(const std::string& name) {
  std::vector<char> content;
  std::string failed;
  if (comm->me == 0) {
    try {
      content = plain_content(name, dtype);
    } catch (const std::exception& found) {
      failed = found.what();
    }
  }
  bigint sizes[2] = {bigint(content.size()), bigint(failed.size())};
  MPI_Bcast(sizes, 2, MPI_LMP_BIGINT, 0, world);
  if (sizes[0] > 2000000000) failed = "it is too large";
  if (sizes[1]) error->all(FLERR, name + ": " + failed);
  content.resize(size_t(sizes[0]));
  MPI_Bcast(content.data(), int(sizes[0]), MPI_CHAR, 0, world);
  try {
    model = asecalc::read_model(content.data(), index_t(content.size()), kernels());
  } catch (const std::exception& found) {
    failed = found.what();
  }
  if (!failed.empty()) error->all(FLERR, name + ": " + failed);
  if (model.dtype != dtype)
    error->all(FLERR, name + " was exported for " + model.dtype + ": write pair_style asecalc " + model.dtype);
  index_t widest = 0;
  lists.clear(), list_of.clear(), shifts.clear();
  spaces = std::vector<asecalc::Space>(model.parts.size());
  for (const auto& part : model.parts) {
    shifts.push_back(asecalc::alone(part, model));
    for (size_t k = 0; k < model.numbers.size(); ++k) shifts.back()[k] = part.e0[k] - part.scale * shifts.back()[k];
    widest = std::max(widest, part.functions.exchanged(part.network()) * model.width());
    // A part that does not gain by shorter rows takes those of the longest cutoff.
    const double cutoff = part.trims ? part.cutoff : model.cutoff();
    size_t k = 0;
    while (k < lists.size() && lists[k].cutoff != cutoff) ++k;
    if (k == lists.size()) lists.emplace_back(), lists.back().cutoff = cutoff;
    list_of.push_back(k);
  }
  comm_forward = comm_reverse = int((widest + 7) / 8);
  if (comm->me) return;
  const std::string line = "pair_style asecalc: " + model.name + ", " + model.architecture + ", " + dtype + ", cutoff " +
                           std::to_string(model.cutoff()).substr(0, 5) + " A, " +
                           std::to_string(widest) + " bytes per ghost in the largest exchange\n";
  for (FILE* out : {screen, logfile})
    if (out) std::fputs(line.c_str(), out);
}

void PairAsecalc::init_style() {
  if (std::strcmp(update->unit_style, "metal"))
    error->all(FLERR, std::string("pair_style asecalc is in eV and Angstrom: write units metal, not ") + update->unit_style);
  if (!force->newton_pair) error->all(FLERR, "pair_style asecalc needs newton on");
  if (atom->molecular != Atom::ATOMIC)
    for (int k = 1; k < 4; ++k)
      if (force->special_lj[k] == 0.0 && force->special_coul[k] == 0.0)
        error->all(FLERR, "bonded neighbours are left out of the lists; write special_bonds lj/coul 1 1 1");
  // A hybrid asked for these before pair_coeff, when no model was read; LAMMPS makes its buffers after this.
  force->pair->comm_forward = std::max(force->pair->comm_forward, comm_forward);
  force->pair->comm_reverse = std::max(force->pair->comm_reverse, comm_reverse);
  neighbor->add_request(this, NeighConst::REQ_FULL);
}

double PairAsecalc::init_one(int, int) { return model.cutoff(); }

// --- forces ---------------------------------------------------------------------------------------------------------

void PairAsecalc::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  find_numbers();
  for (Rows& rows : lists) find_rows(rows);
  total = 0;
  for (size_t p = 0; p < model.parts.size(); ++p) run(model.parts[p], p);
  if (eflag_global) eng_vdwl += total, find_closest();
  if (!std::isfinite(total))
    error->one(FLERR, "pair_style asecalc: energy is not finite at step " + std::to_string(update->ntimestep) +
                          "; atoms may have come too close to each other");
}

void PairAsecalc::find_numbers() {
  const int nlocal = atom->nlocal, nall = nlocal + atom->nghost;
  numbers.resize(size_t(nall));
  of_atom.assign(size_t(nlocal), -1);
  for (int i = 0; i < nall; ++i) {
    const int k = element[size_t(atom->type[i])];
    numbers[size_t(i)] = model.numbers[size_t(k < 0 ? 0 : k)];
  }
  for (int n = 0; n < list->inum; ++n) {
    const int i = list->ilist[n];
    of_atom[size_t(i)] = element[size_t(atom->type[i])];
  }
}

// Rows without the skin. Atoms of other styles have none and are in none.
void PairAsecalc::find_rows(Rows& found) {
  const int nlocal = atom->nlocal;
  const double* const* x = atom->x;
  const double most = found.cutoff * found.cutoff;
  found.rows.resize(size_t(nlocal + 1));
  found.neighbors.clear(), found.vectors.clear();
  found.rows[0] = 0;
  for (int i = 0; i < nlocal; ++i) {
    if (of_atom[size_t(i)] >= 0) {
      const int* row = list->firstneigh[i];
      for (int n = 0; n < list->numneigh[i]; ++n) {
        const int j = row[n] & NEIGHMASK;
        const double v[3] = {x[j][0] - x[i][0], x[j][1] - x[i][1], x[j][2] - x[i][2]};
        if (v[0] * v[0] + v[1] * v[1] + v[2] * v[2] >= most || element[size_t(atom->type[j])] < 0) continue;
        found.neighbors.push_back(j);
        found.vectors.insert(found.vectors.end(), v, v + 3);
      }
    }
    found.rows[size_t(i + 1)] = index_t(found.neighbors.size());
  }
}

void PairAsecalc::run(const asecalc::Part& part, size_t p) {
  const Rows& rows = lists[list_of[p]];
  const index_t nlocal = atom->nlocal, edges = index_t(rows.neighbors.size());
  energies.resize(size_t(nlocal));
  gradient.resize(size_t(3 * edges + 1));    // never empty: without an address a kernel would leave out the gradient
  const Graph graph{nlocal,         edges, threads, rows.rows.data(), rows.neighbors.data(),
                    numbers.data(), rows.vectors.data(), atom->nghost};
  asecalc::run_part(part, model, graph, spaces[p], energies.data(), gradient.data(),
                    [this](const Exchange& after) { exchange(after); });
  for (index_t i = 0; i < nlocal; ++i) {
    const int k = of_atom[size_t(i)];
    if (k < 0) continue;
    const double energy = part.scale * energies[size_t(i)] + shifts[p][size_t(k)];
    total += energy;
    if (eflag_atom) eatom[i] += energy;
  }
  tally(rows, part.scale);
}

// Forces and virials from the gradients of the edges: F_i += g, F_j −= g, W −= v ⊗ g, half of it to either atom.
void PairAsecalc::tally(const Rows& rows, double scale) {
  double** f = atom->f;
  double sum[6] = {};
  for (int i = 0; i < atom->nlocal; ++i) {
    double own[3] = {};
    for (index_t e = rows.rows[size_t(i)]; e < rows.rows[size_t(i + 1)]; ++e) {
      const double *g = gradient.data() + 3 * e, *v = rows.vectors.data() + 3 * e;
      const double s[3] = {scale * g[0], scale * g[1], scale * g[2]};
      double* other = f[rows.neighbors[size_t(e)]];
      for (int a = 0; a < 3; ++a) own[a] += s[a], other[a] -= s[a];
      if (!vflag_either) continue;
      const double w[6] = {-v[0] * s[0], -v[1] * s[1], -v[2] * s[2], -0.5 * (v[0] * s[1] + v[1] * s[0]),
                           -0.5 * (v[0] * s[2] + v[2] * s[0]), -0.5 * (v[1] * s[2] + v[2] * s[1])};
      for (int a = 0; a < 6; ++a) sum[a] += w[a];
      if (!vflag_atom) continue;
      for (int a = 0; a < 6; ++a) {
        vatom[i][a] += 0.5 * w[a];
        vatom[rows.neighbors[size_t(e)]][a] += 0.5 * w[a];
      }
    }
    for (int a = 0; a < 3; ++a) f[i][a] += own[a];
  }
  if (vflag_global)
    for (int a = 0; a < 6; ++a) virial[a] += sum[a];
}

// For compute pair, which adds up what the ranks have: a share of the closest approach of all. 1000 where nothing is near.
void PairAsecalc::find_closest() {
  double own[3] = {1000.0, 1000.0, 1000.0}, all[3];
  const Rows& rows = *std::max_element(lists.begin(), lists.end(),
                                       [](const Rows& a, const Rows& b) { return a.cutoff < b.cutoff; });
  for (int i = 0; i < atom->nlocal; ++i)
    for (index_t e = rows.rows[size_t(i)]; e < rows.rows[size_t(i + 1)]; ++e) {
      const double* v = rows.vectors.data() + 3 * e;
      const double distance = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
      const size_t one = size_t(of_atom[size_t(i)]);
      const size_t other = size_t(element[size_t(atom->type[rows.neighbors[size_t(e)]])]);
      const double known = model.closest[one * model.numbers.size() + other];
      own[0] = std::min(own[0], distance);
      own[1] = std::min(own[1], distance / (model.radii[one] + model.radii[other]));
      if (known > 0.0) own[2] = std::min(own[2], distance / known);
    }
  MPI_Allreduce(own, all, 3, MPI_DOUBLE, MPI_MIN, world);
  for (int k = 0; k < 3; ++k) pvector[k] = all[k] / comm->nprocs;
}

// --- exchange -------------------------------------------------------------------------------------------------------

int PairAsecalc::exchange_size() const {
  index_t width = 0;
  for (index_t p = 0; p < now.pieces; ++p) width += now.width[p];
  return int((width * model.width() + 7) / 8);
}

void PairAsecalc::exchange(const Exchange& after) {
  // The sizes need not be told: comm_forward and comm_reverse, those of the widest exchange, are the limits of what is
  // received. LAMMPS before 2025 has no argument for them.
  now = after;
  if (now.direction == FORWARD) comm->forward_comm(this);
  else comm->reverse_comm(this);
}

int PairAsecalc::pack_forward_comm(int n, int* which, double* buffer, int, int*) {
  char* to = reinterpret_cast<char*>(buffer);
  for (int k = 0; k < n; ++k)
    for (index_t p = 0; p < now.pieces; ++p) {
      const size_t bytes = size_t(now.width[p] * model.width());
      std::memcpy(to, static_cast<const char*>(now.rows[p]) + size_t(which[k]) * bytes, bytes);
      to += bytes;
    }
  return n * exchange_size();
}

void PairAsecalc::unpack_forward_comm(int n, int first, double* buffer) {
  const char* from = reinterpret_cast<const char*>(buffer);
  for (int k = first; k < first + n; ++k)
    for (index_t p = 0; p < now.pieces; ++p) {
      const size_t bytes = size_t(now.width[p] * model.width());
      std::memcpy(static_cast<char*>(now.rows[p]) + size_t(k) * bytes, from, bytes);
      from += bytes;
    }
}

int PairAsecalc::pack_reverse_comm(int n, int first, double* buffer) {
  char* to = reinterpret_cast<char*>(buffer);
  for (int k = first; k < first + n; ++k)
    for (index_t p = 0; p < now.pieces; ++p) {
      const size_t bytes = size_t(now.width[p] * model.width());
      std::memcpy(to, static_cast<const char*>(now.rows[p]) + size_t(k) * bytes, bytes);
      to += bytes;
    }
  return n * exchange_size();
}

template <typename T>
void PairAsecalc::add_rows(int n, const int* which, const double* buffer) {
  const T* from = reinterpret_cast<const T*>(buffer);
  for (int k = 0; k < n; ++k)
    for (index_t p = 0; p < now.pieces; ++p) {
      T* to = static_cast<T*>(now.rows[p]) + index_t(which[k]) * now.width[p];
      for (index_t f = 0; f < now.width[p]; ++f) to[f] += *from++;
    }
}

void PairAsecalc::unpack_reverse_comm(int n, int* which, double* buffer) {
  if (model.width() == 8) add_rows<double>(n, which, buffer);
  else add_rows<float>(n, which, buffer);
}

double PairAsecalc::memory_usage() {
  double bytes = Pair::memory_usage() + double(numbers.capacity()) * 8 + double(gradient.capacity()) * 8;
  for (const auto& space : spaces) bytes += double(space.bytes());
  for (const auto& rows : lists)
    bytes += 8.0 * double(rows.rows.capacity() + rows.neighbors.capacity() + rows.vectors.capacity());
  return bytes;
}

// --- plugin ---------------------------------------------------------------------------------------------------------

// As in lammpsplugin.h, which not every LAMMPS comes with.
extern "C" {
typedef void*(creator_of)(void*);
struct lammpsplugin_t {
  const char *version, *style, *name, *info, *author;
  union {
    creator_of *v1, *v2, *v3;
  } creator;
  void* handle;
};

static void* make(void* lmp) { return static_cast<Pair*>(new PairAsecalc(static_cast<LAMMPS*>(lmp))); }

// "22 Jul 2025" or "20250722" as 20250722
static int version_number(const std::string& text) {
  int day = 0, year = 0;
  char month[4] = "";
  if (std::sscanf(text.c_str(), "%d %3s %d", &day, month, &year) != 3) return std::atoi(text.c_str());
  const char* all = "JanFebMarAprMayJunJulAugSepOctNovDec";
  const char* found = std::strstr(all, month);
  return year * 10000 + (found ? int(found - all) / 3 + 1 : 0) * 100 + day;
}

void lammpsplugin_init(void* lmp, void* handle, void* registers) {
  // The layout of LAMMPS' classes changes between versions, so ask by C first.
  int version = 0;
  int (*ask)(void*);
  if (void* found = dlsym(RTLD_DEFAULT, "lammps_version")) {
    std::memcpy(&ask, &found, sizeof found);
    version = ask(lmp);
  } else {
    version = static_cast<LAMMPS*>(lmp)->num_ver;
  }
  const int built = version_number(ASECALC_HEADERS);
  if (version != built) {
    std::fprintf(stderr,
                 "asecalc-mlip: its pair style was built for LAMMPS %d and is not loaded into LAMMPS %d: build it for this "
                 "one, asecalc lammps plugin --help tells how\n",
                 built, version);
    return;
  }
  lammpsplugin_t plugin;
  plugin.version = static_cast<LAMMPS*>(lmp)->version;
  plugin.style = "pair";
  plugin.name = "asecalc";
  plugin.info = "models of asecalc-mlip, layer by layer over MPI, asecalc-mlip " ASECALC_VERSION;
  plugin.author = "asecalc-mlip contributors";
  plugin.creator.v1 = &make;
  plugin.handle = handle;
  reinterpret_cast<void (*)(lammpsplugin_t*, void*)>(registers)(&plugin, lmp);
}
}
