// TensorNet in training, its filters read between knots: messages and the embedding, forward, first and second
// derivative, as operations.h says. Nothing of the width of the filters is stored per edge.
//
// A filter is the polynomial of the fifth degree through the six knots about an edge, w = Σ_k c_k(t) table_(start + k)
// with t counted in knots from `start`. A table has rows of 3F numbers: those of I, of A and of S. Edges meet its rows in
// no order, so the features are the outer loop, and what a register of them needs of the table lies together in the
// second cache.
//
// Where nobody asks for the gradient of the table, its place in `out` is null, and where none comes in, that in `in`.
#include "operations.h"

namespace {

constexpr index_t ROWS = 9, PARTS = 3, TERMS = 6;
constexpr index_t PART[ROWS] = {0, 1, 1, 1, 2, 2, 2, 2, 2};

// Polynomials at t that are one at one knot and zero at the others, and their first two derivatives
template <typename V>
struct Polynomials {
  V value[TERMS], slope[TERMS], bend[TERMS];
};

template <typename T, typename V>
INLINE Polynomials<V> polynomials(V t) {
  // Products of the distances from the knots to the left and to the right, and their derivatives
  const V zero{}, one = zero + T(1);
  V l0[TERMS], l1[TERMS], l2[TERMS], r0[TERMS], r1[TERMS], r2[TERMS];
  l0[0] = r0[0] = one, l1[0] = r1[0] = l2[0] = r2[0] = zero;
  for (int k = 0; k + 1 < TERMS; ++k) {
    const V a = t - T(k), b = t - T(TERMS - 1 - k);
    l0[k + 1] = l0[k] * a, l1[k + 1] = l1[k] * a + l0[k], l2[k + 1] = l2[k] * a + T(2) * l1[k];
    r0[k + 1] = r0[k] * b, r1[k + 1] = r1[k] * b + r0[k], r2[k + 1] = r2[k] * b + T(2) * r1[k];
  }
  // 1/Π (k − m) over the other knots m
  constexpr T scale[TERMS] = {T(-1.0 / 120), T(1.0 / 24), T(-1.0 / 12), T(1.0 / 12), T(-1.0 / 24), T(1.0 / 120)};
  Polynomials<V> c;
  for (int k = 0; k < TERMS; ++k) {
    const int m = TERMS - 1 - k;
    c.value[k] = scale[k] * l0[k] * r0[m];
    c.slope[k] = scale[k] * (l1[k] * r0[m] + l0[k] * r1[m]);
    c.bend[k] = scale[k] * (l2[k] * r0[m] + T(2) * l1[k] * r1[m] + l0[k] * r2[m]);
  }
  return c;
}

// Edges among the knots. Their t are `stride` numbers apart; `others` holds the neighbours of all edges, and after them
// their first knots.
template <typename T>
struct Places {
  std::vector<Polynomials<T>> at;
  index_t first = 0, nodes = 0;  // of the table, that edges read

  INLINE Places(const Call<T>& c, index_t stride) : at(c.edges) {
    constexpr index_t L = Lanes<T>::count;
    index_t e = 0;
    for (; e + L <= c.edges; e += L) {
      Vec<T> t;
      for (index_t l = 0; l < L; ++l) t[l] = c.in[0][(e + l) * stride];
      const auto many = polynomials<T>(t);
      for (index_t l = 0; l < L; ++l)
        for (int k = 0; k < TERMS; ++k)
          at[e + l].value[k] = many.value[k][l], at[e + l].slope[k] = many.slope[k][l], at[e + l].bend[k] = many.bend[k][l];
    }
    for (; e < c.edges; ++e) at[e] = polynomials<T>(c.in[0][e * stride]);
    if (!c.edges) return;
    const auto ends = std::minmax_element(c.others + c.edges, c.others + 2 * c.edges);
    first = *ends.first, nodes = *ends.second + TERMS - first;
  }
  INLINE index_t node(const Call<T>& c, index_t e) const { return c.others[c.edges + e] - first; }
};

// A block of features of the rows of a table that are read, (nodes, PARTS) one after another; none without a table
template <typename T, typename V>
struct Slice {
  std::vector<T> space;
  V* rows = nullptr;

  INLINE Slice(const Places<T>& places, const T* table) {
    if (!table) return;
    space.resize(places.nodes * PARTS * (sizeof(V) / sizeof(T)) + 64 / sizeof(T));
    // On a cache line, as vectors are.
    const auto address = reinterpret_cast<std::uintptr_t>(space.data());
    rows = reinterpret_cast<V*>((address + 63) / 64 * 64);
  }
  Slice(Slice&&) = default;  // a copy would point into the other's space
  INLINE V* at(index_t node) const { return rows ? rows + node * PARTS : nullptr; }
};

template <typename V, typename T>
INLINE Slice<T, V> slice(const Call<T>& c, const Places<T>& places, const T* table, index_t f) {
  Slice<T, V> made(places, table);
  for (index_t k = 0; made.rows && k < places.nodes * PARTS; ++k)
    made.rows[k] = get<V>(table + (places.first * PARTS + k) * c.features + f);
  return made;
}
template <typename V, typename T>
INLINE void add_slice(const Call<T>& c, const Places<T>& places, const Slice<T, V>& made, T* table, index_t f) {
  for (index_t k = 0; made.rows && k < places.nodes * PARTS; ++k)
    add(table + (places.first * PARTS + k) * c.features + f, made.rows[k]);
}

// w = Σ c_k t_k of the three parts, from the first of six nodes; v and u likewise with d and b
template <typename T, typename V>
INLINE void read(const V* nodes, const T c[TERMS], V w[PARTS]) {
  for (int p = 0; p < PARTS; ++p) w[p] = c[0] * nodes[p];
  for (int k = 1; k < TERMS; ++k)
    for (int p = 0; p < PARTS; ++p) w[p] += c[k] * nodes[k * PARTS + p];
}
template <typename T, typename V>
INLINE void read(const V* nodes, const T c[TERMS], const T d[TERMS], V w[PARTS], V v[PARTS]) {
  for (int p = 0; p < PARTS; ++p) w[p] = c[0] * nodes[p], v[p] = d[0] * nodes[p];
  for (int k = 1; k < TERMS; ++k)
    for (int p = 0; p < PARTS; ++p) w[p] += c[k] * nodes[k * PARTS + p], v[p] += d[k] * nodes[k * PARTS + p];
}
template <typename T, typename V>
INLINE void read(const V* nodes, const Polynomials<T>& c, V w[PARTS], V v[PARTS], V u[PARTS]) {
  for (int p = 0; p < PARTS; ++p)
    w[p] = c.value[0] * nodes[p], v[p] = c.slope[0] * nodes[p], u[p] = c.bend[0] * nodes[p];
  for (int k = 1; k < TERMS; ++k)
    for (int p = 0; p < PARTS; ++p) {
      const V node = nodes[k * PARTS + p];
      w[p] += c.value[k] * node, v[p] += c.slope[k] * node, u[p] += c.bend[k] * node;
    }
}

// The gradient of a table: g of the value of an edge; and h of its slope
template <typename T, typename V>
INLINE void spread_out(V* nodes, const T c[TERMS], const V g[PARTS]) {
  for (int k = 0; k < TERMS; ++k)
    for (int p = 0; p < PARTS; ++p) nodes[k * PARTS + p] += c[k] * g[p];
}
template <typename T, typename V>
INLINE void spread_out(V* nodes, const Polynomials<T>& c, const V g[PARTS], const V h[PARTS]) {
  for (int k = 0; k < TERMS; ++k)
    for (int p = 0; p < PARTS; ++p) nodes[k * PARTS + p] += c.value[k] * g[p] + c.slope[k] * h[p];
}

// What w and its slope change by along ht and, where there is one, the direction of the table; u is its second derivative
template <typename T, typename V>
INLINE void changes(const V* direction, const Polynomials<T>& c, T ht, const V v[PARTS], const V u[PARTS],
                    V change[PARTS], V turn[PARTS]) {
  for (int p = 0; p < PARTS; ++p) change[p] = ht * v[p], turn[p] = ht * u[p];
  if (!direction) return;
  V more[PARTS], slopes[PARTS];
  read(direction, c.value, c.slope, more, slopes);
  for (int p = 0; p < PARTS; ++p) change[p] += more[p], turn[p] += slopes[p];
}

// --- m_i = Σ_e w_e y_j: inputs t (E), table (nodes, 3F), y (N, 9F) ----------------------------------------------------

template <typename T>
INLINE void knots_forward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  const Places<T> places(c, 1);
  over_features<T>(f0, f1, BLOCK(f) {
    using V = decltype(zero);
    const Slice<T, V> table = slice<V>(c, places, c.in[1], f);
    clear(c, c.out[0], c.atoms * ROWS, f, zero);
    over_centers(c, ROW(first, end) {
      V sums[ROWS];
      for (auto& s : sums) s = zero;
      for (index_t e = first; e < end; ++e) {
        const T* y = c.in[2] + c.others[e] * ROWS * F + f;
        V w[PARTS];
        read(table.at(places.node(c, e)), places.at[e].value, w);
        for (int r = 0; r < ROWS; ++r) sums[r] += w[PART[r]] * get<V>(y + r * F);
      }
      for (int r = 0; r < ROWS; ++r) put(c.out[0] + (c.centers[first] * ROWS + r) * F + f, sums[r]);
    });
  });
}

// in: t, table, y, gm; out: gtable, gy, and the sums over features gt
template <typename T>
INLINE void knots_backward(const Call<T>& c, T* to, index_t f0, index_t f1) {
  const index_t F = c.features;
  const Places<T> places(c, 1);
  std::fill(to, to + c.edges, T(0));
  over_features<T>(f0, f1, BLOCK(f) {
    using V = decltype(zero);
    const Slice<T, V> table = slice<V>(c, places, c.in[1], f), gradient(places, c.out[0]);
    clear(c, c.out[1], c.atoms * ROWS, f, zero);
    over_centers(c, ROW(first, end) {
      V g[ROWS];
      for (int r = 0; r < ROWS; ++r) g[r] = get<V>(c.in[3] + (c.centers[first] * ROWS + r) * F + f);
      for (index_t e = first; e < end; ++e) {
        const index_t node = places.node(c, e), j = c.others[e] * ROWS * F + f;
        V w[PARTS], slope[PARTS], of_part[PARTS] = {zero, zero, zero};
        read(table.at(node), places.at[e].value, places.at[e].slope, w, slope);
        for (int r = 0; r < ROWS; ++r) {
          of_part[PART[r]] += get<V>(c.in[2] + j + r * F) * g[r];
          add(c.out[1] + j + r * F, V(w[PART[r]] * g[r]));
        }
        to[e] += total(V(slope[0] * of_part[0] + slope[1] * of_part[1] + slope[2] * of_part[2]));
        if (gradient.rows) spread_out(gradient.at(node), places.at[e].value, of_part);
      }
    });
    add_slice(c, places, gradient, c.out[0], f);
  });
}

// in: t, table, y, gm, ht, htable, hy; out: dgm, dtable, dy, and the sums over features dt
template <typename T>
INLINE void knots_second(const Call<T>& c, T* to, index_t f0, index_t f1) {
  const index_t F = c.features;
  const Places<T> places(c, 1);
  std::fill(to, to + c.edges, T(0));
  over_features<T>(f0, f1, BLOCK(f) {
    using V = decltype(zero);
    const Slice<T, V> table = slice<V>(c, places, c.in[1], f), direction = slice<V>(c, places, c.in[5], f);
    const Slice<T, V> gradient(places, c.out[1]);
    for (const int k : {0, 2}) clear(c, c.out[k], c.atoms * ROWS, f, zero);
    over_centers(c, ROW(first, end) {
      const index_t i = c.centers[first] * ROWS * F + f;
      V g[ROWS], dg[ROWS];
      for (int r = 0; r < ROWS; ++r) g[r] = get<V>(c.in[3] + i + r * F), dg[r] = zero;
      for (index_t e = first; e < end; ++e) {
        const index_t node = places.node(c, e), j = c.others[e] * ROWS * F + f;
        const T ht = c.in[4][e];
        V w[PARTS], slope[PARTS], bend[PARTS], change[PARTS], turn[PARTS];
        read(table.at(node), places.at[e], w, slope, bend);
        changes(direction.at(node), places.at[e], ht, slope, bend, change, turn);
        V along[PARTS] = {zero, zero, zero}, turned[PARTS] = {zero, zero, zero}, sum = zero;
        for (int r = 0; r < ROWS; ++r) {
          const V towards = get<V>(c.in[6] + j + r * F), sent = get<V>(c.in[2] + j + r * F);
          dg[r] += change[PART[r]] * sent + w[PART[r]] * towards;
          add(c.out[2] + j + r * F, V(change[PART[r]] * g[r]));
          along[PART[r]] += sent * g[r];
          turned[PART[r]] += towards * g[r];
        }
        for (int p = 0; p < PARTS; ++p) sum += turn[p] * along[p] + slope[p] * turned[p], along[p] *= ht;
        to[e] += total(sum);
        if (gradient.rows) spread_out(gradient.at(node), places.at[e], turned, along);
      }
      for (int r = 0; r < ROWS; ++r) put(c.out[0] + i + r * F, dg[r]);
    });
    add_slice(c, places, gradient, c.out[1], f);
  });
}

// --- u_i = Σ_e s_e w_e z_e with z_e = a_j + b_i and s_e the nine numbers of 1 + [û]× + (ûûᵀ − 1/3):
// inputs q = (t, û) (E, 4), table (nodes, 3F), a and b (N, F) ----------------------------------------------------------

template <typename T>
INLINE void lines(const T* u, T s[ROWS]) {
  const T third = T(1.0 / 3.0), x = u[0], y = u[1], z = u[2];
  const T all[ROWS] = {1, x, y, z, x * x - third, y * y - third, x * y, x * z, y * z};
  std::copy(all, all + ROWS, s);
}

// Their change along h
template <typename T>
INLINE void lines_along(const T* u, const T* h, T s[ROWS]) {
  const T all[ROWS] = {0, h[0], h[1], h[2], 2 * u[0] * h[0], 2 * u[1] * h[1], u[0] * h[1] + u[1] * h[0],
                       u[0] * h[2] + u[2] * h[0], u[1] * h[2] + u[2] * h[1]};
  std::copy(all, all + ROWS, s);
}

// Gradient by û of Σ g_r s_r over the rows of S, which are bilinear in û
template <typename T, typename V>
INLINE void lines_back(const T* u, const V g[ROWS], V to[3]) {
  const T x = u[0], y = u[1], z = u[2];
  to[0] = 2 * x * g[4] + y * g[6] + z * g[7];
  to[1] = 2 * y * g[5] + x * g[6] + z * g[8];
  to[2] = x * g[7] + y * g[8];
}

template <typename T>
INLINE void spread_knots_forward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  const Places<T> places(c, 4);
  over_features<T>(f0, f1, BLOCK(f) {
    using V = decltype(zero);
    const Slice<T, V> table = slice<V>(c, places, c.in[1], f);
    clear(c, c.out[0], c.atoms * ROWS, f, zero);
    over_centers(c, ROW(first, end) {
      const index_t i = c.centers[first];
      const V b = get<V>(c.in[3] + i * F + f);
      V sums[ROWS];
      for (auto& s : sums) s = zero;
      for (index_t e = first; e < end; ++e) {
        const V z = get<V>(c.in[2] + c.others[e] * F + f) + b;
        V w[PARTS];
        T s[ROWS];
        lines(c.in[0] + 4 * e + 1, s);
        read(table.at(places.node(c, e)), places.at[e].value, w);
        for (auto& amount : w) amount *= z;
        for (int r = 0; r < ROWS; ++r) sums[r] += s[r] * w[PART[r]];
      }
      for (int r = 0; r < ROWS; ++r) put(c.out[0] + (i * ROWS + r) * F + f, sums[r]);
    });
  });
}

// in: q, table, a, b, gu; out: gtable, ga, gb, and the sums over features gq (E, 4)
template <typename T>
INLINE void spread_knots_backward(const Call<T>& c, T* to, index_t f0, index_t f1) {
  const index_t F = c.features;
  const Places<T> places(c, 4);
  std::fill(to, to + 4 * c.edges, T(0));
  over_features<T>(f0, f1, BLOCK(f) {
    using V = decltype(zero);
    const Slice<T, V> table = slice<V>(c, places, c.in[1], f), gradient(places, c.out[0]);
    over_centers(c, ROW(first, end) {
      const index_t i = c.centers[first];
      const V b = get<V>(c.in[3] + i * F + f);
      V g[ROWS], gb = zero;
      for (int r = 0; r < ROWS; ++r) g[r] = get<V>(c.in[4] + (i * ROWS + r) * F + f);
      for (index_t e = first; e < end; ++e) {
        const index_t node = places.node(c, e), j = c.others[e] * F + f;
        const T* u = c.in[0] + 4 * e + 1;
        const V z = get<V>(c.in[2] + j) + b;
        V w[PARTS], slope[PARTS], along[PARTS] = {zero, zero, zero}, gz = zero, gt = zero, gu[3];
        T s[ROWS];
        lines(u, s);
        read(table.at(node), places.at[e].value, places.at[e].slope, w, slope);
        for (int r = 0; r < ROWS; ++r) along[PART[r]] += s[r] * g[r];
        for (int p = 0; p < PARTS; ++p) gz += w[p] * along[p], along[p] *= z, gt += slope[p] * along[p];
        lines_back(u, g, gu);
        to[4 * e] += total(gt);
        for (int k = 0; k < 3; ++k) to[4 * e + 1 + k] += total(V(z * (w[1] * g[1 + k] + w[2] * gu[k])));
        if (gradient.rows) spread_out(gradient.at(node), places.at[e].value, along);
        if (c.out[1]) add(c.out[1] + j, gz);
        gb += gz;
      }
      if (c.out[2]) add(c.out[2] + i * F + f, gb);
    });
    add_slice(c, places, gradient, c.out[0], f);
  });
}

// in: q, table, a, b, gu, hq, htable, ha, hb; out: dgu, dtable, da, db, and the sums over features dq (E, 4)
template <typename T>
INLINE void spread_knots_second(const Call<T>& c, T* to, index_t f0, index_t f1) {
  const index_t F = c.features;
  const Places<T> places(c, 4);
  std::fill(to, to + 4 * c.edges, T(0));
  over_features<T>(f0, f1, BLOCK(f) {
    using V = decltype(zero);
    const Slice<T, V> table = slice<V>(c, places, c.in[1], f), direction = slice<V>(c, places, c.in[6], f);
    const Slice<T, V> gradient(places, c.out[1]);
    clear(c, c.out[0], c.atoms * ROWS, f, zero);
    over_centers(c, ROW(first, end) {
      const index_t i = c.centers[first];
      const V b = get<V>(c.in[3] + i * F + f), hb = c.in[8] ? get<V>(c.in[8] + i * F + f) : zero;
      V g[ROWS], dg[ROWS], db = zero;
      for (int r = 0; r < ROWS; ++r) g[r] = get<V>(c.in[4] + (i * ROWS + r) * F + f), dg[r] = zero;
      for (index_t e = first; e < end; ++e) {
        const index_t node = places.node(c, e), j = c.others[e] * F + f;
        const T *u = c.in[0] + 4 * e + 1, *hu = c.in[5] + 4 * e + 1, ht = c.in[5][4 * e];
        const V z = get<V>(c.in[2] + j) + b, hz = c.in[7] ? V(get<V>(c.in[7] + j) + hb) : hb;
        T s[ROWS], hs[ROWS];
        lines(u, s);
        lines_along(u, hu, hs);
        V w[PARTS], slope[PARTS], bend[PARTS], change[PARTS], turn[PARTS];
        read(table.at(node), places.at[e], w, slope, bend);
        changes(direction.at(node), places.at[e], ht, slope, bend, change, turn);
        V amount[PARTS], moved[PARTS], along[PARTS], turned[PARTS];
        for (int p = 0; p < PARTS; ++p)
          amount[p] = w[p] * z, moved[p] = change[p] * z + w[p] * hz, along[p] = turned[p] = zero;
        for (int r = 0; r < ROWS; ++r) {
          along[PART[r]] += s[r] * g[r];
          turned[PART[r]] += hs[r] * g[r];
          dg[r] += s[r] * moved[PART[r]] + hs[r] * amount[PART[r]];
        }
        V dt = zero, dz = zero, of_value[PARTS], of_slope[PARTS], gu[3], ghu[3];
        for (int p = 0; p < PARTS; ++p) {
          of_value[p] = turned[p] * z + along[p] * hz;
          dt += slope[p] * of_value[p] + turn[p] * along[p] * z;
          dz += w[p] * turned[p] + change[p] * along[p];
          of_slope[p] = ht * along[p] * z;
        }
        lines_back(u, g, gu);
        lines_back(hu, g, ghu);
        to[4 * e] += total(dt);
        for (int k = 0; k < 3; ++k)
          to[4 * e + 1 + k] += total(V(moved[1] * g[1 + k] + moved[2] * gu[k] + amount[2] * ghu[k]));
        if (gradient.rows) spread_out(gradient.at(node), places.at[e], of_value, of_slope);
        if (c.out[2]) add(c.out[2] + j, dz);
        db += dz;
      }
      for (int r = 0; r < ROWS; ++r) put(c.out[0] + (i * ROWS + r) * F + f, dg[r]);
      if (c.out[3]) add(c.out[3] + i * F + f, db);
    });
    add_slice(c, places, gradient, c.out[1], f);
  });
}

}  // namespace

OPERATION(knots_forward, 0)
OPERATION(knots_backward, 1)
OPERATION(knots_second, 1)
OPERATION(spread_knots_forward, 0)
OPERATION(spread_knots_backward, 4)
OPERATION(spread_knots_second, 4)
