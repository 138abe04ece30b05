#include "llama-kv-mixed-state.h"

#include "ggml-qlutattn.h"
#include "llama-hparams.h"
#include "llama-impl.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>

static constexpr uint32_t STATE_MAGIC = 0x564b4c51; // QLKV

static void expect(llama_kv_mixed_reader & in, const char * what, uint32_t wanted) {
    const uint32_t found = in.read_u32();
    if (found != wanted) {
        throw std::runtime_error(format("the state is of another KV cache: %s is %u there and %u here", what, found, wanted));
    }
}

// the blocks of memory of a layer's keys or values, in the order in which they are saved
template <typename F>
static void for_each_block(const llama_kv_cache_mixed::side & side, uint32_t stream, const std::vector<uint32_t> & cells,
                           const std::vector<uint32_t> & tiles, const F & f) {
    const ggml_tensor * t = side.f16;
    for (uint32_t cell : cells) {
        f((uint8_t *) t->data + stream * t->nb[2] + cell * t->nb[1], t->nb[1]);
    }
    t = side.packed;
    for (uint32_t tile : tiles) {
        const size_t size = GGML_QLUTATTN_TILE * t->nb[1];
        if (ggml_is_qlutattn(t->type)) {
            for (int64_t col = 0; col < t->ne[2]; col++) {
                f((uint8_t *) t->data + stream * t->nb[3] + col * t->nb[2] + tile * size, size);
            }
        } else {
            f((uint8_t *) t->data + stream * t->nb[2] + tile * size, size);
        }
    }
}

//
// write
//

// whether a state of seq_id (-1: all sequences) has the token of a cell
static bool is_saved(const llama_kv_cells & cells, uint32_t i, llama_seq_id seq_id) {
    return !cells.is_empty(i) && (seq_id < 0 || cells.seq_has(i, seq_id));
}

static void write_token(llama_kv_mixed_writer & out, const llama_kv_cells & cells, uint32_t i, llama_seq_id seq_id, bool has_ext) {
    if (!is_saved(cells, i, seq_id)) {
        out.write_u32(-1);
        return;
    }
    out.write_u32(cells.pos_get(i));
    out.write_u32(cells.get_shift(i));
    if (has_ext) {
        out.write_u32(cells.ext_get(i).x);
        out.write_u32(cells.ext_get(i).y);
    }
    if (seq_id < 0) {
        out.write_u32(cells.seq_count(i));
        for (llama_seq_id s = 0; s < LLAMA_MAX_SEQ; s++) {
            if (cells.seq_has(i, s)) {
                out.write_u32(s);
            }
        }
    }
}

void llama_kv_mixed_state::write_stream(const llama_kv_cache_mixed & kv, llama_kv_mixed_writer & out, uint32_t s, llama_seq_id seq_id) {
    const auto & stream  = kv.streams[s];
    const bool   has_ext = kv.hparams.n_pos_per_embd() > 1;

    std::vector<uint32_t> cells;
    for (uint32_t i = 0; i < kv.layout.n_f16; i++) {
        if (is_saved(stream.f16, i, seq_id)) {
            cells.push_back(i);
        }
    }
    std::vector<uint32_t> tiles;
    for (uint32_t i = 0; i < kv.layout.n_tiles * GGML_QLUTATTN_TILE; i++) {
        if (is_saved(stream.packed, i, seq_id) && (tiles.empty() || tiles.back() != i / GGML_QLUTATTN_TILE)) {
            tiles.push_back(i / GGML_QLUTATTN_TILE);
        }
    }
    out.write_u32(cells.size());
    out.write_u32(tiles.size());
    for (uint32_t cell : cells) {
        out.write_u32(cell);
        write_token(out, stream.f16, cell, seq_id, has_ext);
    }
    for (uint32_t tile : tiles) {
        out.write_u32(tile);
        out.write_u32(stream.tile_shift[tile]);
        for (uint32_t i = 0; i < GGML_QLUTATTN_TILE; i++) {
            write_token(out, stream.packed, tile * GGML_QLUTATTN_TILE + i, seq_id, has_ext);
        }
    }
    for (const auto * side : kv.sides()) {
        for_each_block(*side, s, cells, tiles, [&out](const uint8_t * data, size_t size) { out.write(data, size); });
    }
}

// whether several sequences share a stream
static bool is_unified(const llama_kv_cache_mixed & kv) {
    return kv.get_layout().n_stream == 1 && kv.get_layout().n_seq_max > 1;
}

void llama_kv_mixed_state::write(const llama_kv_cache_mixed & kv, llama_io_write_i & io, llama_seq_id seq_id) {
    llama_kv_mixed_writer out(io, STATE_MAGIC);

    const uint32_t first = seq_id < 0 ? 0 : kv.stream_of(seq_id);
    const uint32_t last  = seq_id < 0 ? kv.layout.n_stream - 1 : first;

    out.write_u32(seq_id < 0);
    out.write_u32(kv.type_k);
    out.write_u32(kv.type_v);
    out.write_u32(kv.rot_k);
    out.write_u32(kv.rot_v);
    out.write_u32(kv.hparams.n_pos_per_embd() > 1);
    out.write_u32(kv.layers.size());
    out.write_u32(is_unified(kv));
    out.write_u32(last - first + 1);
    for (const auto & l : kv.layers) {
        out.write_u32(l.il);
        out.write_u32(l.head_dim);
        out.write_u32(l.head_dim_v);
        out.write_u32(l.n_head_kv);
    }
    for (uint32_t s = first; s <= last; s++) {
        write_stream(kv, out, s, seq_id);
    }
    out.write_checksum();
}

//
// read
//

template <typename T> static uint32_t count_tokens(const T & tokens) {
    return std::count_if(tokens.begin(), tokens.end(), [](const auto & t) { return t.pos >= 0; });
}

uint32_t llama_kv_mixed_state::read_head(const llama_kv_cache_mixed & kv, llama_kv_mixed_reader & in) {
    expect(in, "whether it is of a whole cache", seq_id < 0);
    expect(in, "the type of K", kv.type_k);
    expect(in, "the type of V", kv.type_v);
    expect(in, "the rotation of K", kv.rot_k);
    expect(in, "the rotation of V", kv.rot_v);
    expect(in, "whether positions have several parts", has_ext);
    expect(in, "the number of layers", kv.layers.size());

    const bool     was_unified = in.read_u32();
    const uint32_t n_stream    = in.read_u32();
    if (n_stream == 0 || n_stream > LLAMA_MAX_SEQ || (n_stream > 1 && (was_unified || seq_id >= 0))) {
        throw std::runtime_error(format("the state of the KV cache is damaged: it has %u streams", n_stream));
    }
    if (seq_id < 0 && (was_unified ? kv.layout.n_stream > 1 : n_stream > 1 && is_unified(kv))) {
        throw std::runtime_error(format(
            "the state is of a KV cache %s, and this one %s: set --kv-unified (kv_unified) as when it was saved, or save "
            "the sequences one by one",
            was_unified ? "that all sequences share" : "with a part for each sequence", was_unified ? "has a part for each" : "is shared by all"));
    }
    for (const auto & l : kv.layers) {
        expect(in, "a layer", l.il);
        expect(in, "the head size of K", l.head_dim);
        expect(in, "the head size of V", l.head_dim_v);
        expect(in, "the number of heads", l.n_head_kv);
    }
    return n_stream;
}

llama_kv_mixed_state::llama_kv_mixed_state(const llama_kv_cache_mixed & kv, llama_io_read_i & io, llama_seq_id seq_id) :
    seq_id(seq_id), has_ext(kv.hparams.n_pos_per_embd() > 1) {
    llama_kv_mixed_reader in(io, STATE_MAGIC);

    streams.resize(read_head(kv, in));
    for (uint32_t s = 0; s < streams.size(); s++) {
        streams[s].stream = seq_id < 0 ? s : kv.stream_of(seq_id);
        read_stream(kv, in, streams[s]);
    }
    in.check_checksum();
    streams.resize(std::min<size_t>(streams.size(), kv.layout.n_stream)); // what is behind has no tokens
    for (auto & s : streams) {
        assign_cells(kv, s);
    }
}

// far from where sums of shifts overflow
static constexpr llama_pos MAX_SHIFT = 1 << 28;

llama_pos llama_kv_mixed_state::read_shift(const llama_kv_cache_mixed & kv, llama_kv_mixed_reader & in) const {
    const llama_pos res = (llama_pos) in.read_u32();
    if (res != 0 && (!kv.get_can_shift() || res < -MAX_SHIFT || res > MAX_SHIFT)) {
        throw std::runtime_error(format("the state of the KV cache is damaged: a token has moved by %d", res));
    }
    return res;
}

llama_kv_mixed_state::token llama_kv_mixed_state::read_token(const llama_kv_cache_mixed & kv, llama_kv_mixed_reader & in, uint32_t stream) const {
    token res;
    res.pos = (llama_pos) in.read_u32();
    if (res.pos < -1 || res.pos == std::numeric_limits<llama_pos>::max()) { // seq_rm's ranges end before the largest position
        throw std::runtime_error(format("the state of the KV cache is damaged: a token is at position %d", res.pos));
    }
    if (res.pos < 0) {
        return res;
    }
    res.shift = read_shift(kv, in);
    if (res.shift > res.pos) {
        throw std::runtime_error(format("the state of the KV cache is damaged: a token at position %d has moved by %d", res.pos, res.shift));
    }
    if (has_ext) {
        res.ext.x = (llama_pos) in.read_u32();
        res.ext.y = (llama_pos) in.read_u32();
    }
    if (seq_id >= 0) {
        res.seq_ids.push_back(seq_id);
        return res;
    }
    const uint32_t n_seq = in.read_u32();
    if (n_seq == 0 || n_seq > LLAMA_MAX_SEQ) {
        throw std::runtime_error(format("the state of the KV cache is damaged: a token has %u sequences", n_seq));
    }
    for (uint32_t i = 0; i < n_seq; i++) {
        const uint32_t id = in.read_u32();
        if (id >= LLAMA_MAX_SEQ || (i > 0 && (llama_seq_id) id <= res.seq_ids.back())) {
            throw std::runtime_error(format("the state of the KV cache is damaged: a token of stream %u has sequence %u", stream, id));
        }
        if (id >= kv.layout.n_seq_max) {
            throw std::runtime_error(
                format("the state has a sequence %u, and this context room for %u: use -np %u (n_seq_max), or save the sequences "
                       "one by one",
                       id, kv.layout.n_seq_max, id + 1));
        }
        if (kv.stream_of(id) != stream) {
            throw std::runtime_error(format("the state of the KV cache is damaged: a token of stream %u has sequence %u", stream, id));
        }
        res.seq_ids.push_back(id);
    }
    return res;
}

// a saved index: they are in ascending order
static uint32_t read_next(llama_kv_mixed_reader & in, const std::vector<uint32_t> & before) {
    const uint32_t res = in.read_u32();
    if (!before.empty() && res <= before.back()) {
        throw std::runtime_error(format("the state of the KV cache is damaged: cell or tile %u follows %u", res, before.back()));
    }
    return res;
}

void llama_kv_mixed_state::read_stream(const llama_kv_cache_mixed & kv, llama_kv_mixed_reader & in, saved_stream & to) const {
    const uint32_t n_f16    = in.read_u32();
    const uint32_t n_tiles  = in.read_u32();
    uint32_t       n_tokens = 0;
    const auto     count    = [&](uint32_t n) {
        n_tokens += n;
        if (n_tokens > kv.layout.n_cells) {
            throw std::runtime_error(format("the state has more tokens than this context has room for, %u: use a larger -c", kv.layout.n_cells));
        }
    };
    for (uint32_t i = 0; i < n_f16; i++) {
        to.cells.push_back(read_next(in, to.cells));
        to.tokens.push_back(read_token(kv, in, to.stream));
        if (to.tokens.back().pos < 0) {
            throw std::runtime_error("the state of the KV cache is damaged: an f16 cell without a token");
        }
        count(1);
    }
    for (uint32_t i = 0; i < n_tiles; i++) {
        to.tiles.push_back(read_next(in, to.tiles));
        to.shifts.push_back(read_shift(kv, in));
        to.in_tiles.emplace_back();
        for (uint32_t k = 0; k < GGML_QLUTATTN_TILE; k++) {
            to.in_tiles.back().push_back(read_token(kv, in, to.stream));
        }
        const uint32_t n = count_tokens(to.in_tiles.back());
        if (n == 0) {
            throw std::runtime_error("the state of the KV cache is damaged: a tile without a token");
        }
        count(n);
    }
    read_sides(kv, in, to);
}

void llama_kv_mixed_state::read_sides(const llama_kv_cache_mixed & kv, llama_kv_mixed_reader & in, saved_stream & to) const {
    const auto read = [&in](std::vector<uint8_t> & data, size_t n_blocks, size_t size) {
        for (size_t i = 0; i < n_blocks; i++) {
            data.resize(data.size() + size);
            in.read(data.data() + data.size() - size, size);
        }
    };
    const auto read_side = [&](ggml_type type, const llama_kv_mixed_side & side) {
        to.sides.push_back({ type, side.f16->ne[0], {} });
        auto & saved = to.sides.back();
        read(saved.data, to.cells.size(), saved.row_size());
        read(saved.data, to.tiles.size() * saved.n_columns(), saved.column_size());
    };
    for (const auto & l : kv.layers) {
        read_side(kv.type_k, l.k);
        if (!l.is_latent()) {
            read_side(kv.type_v, l.v);
        }
    }
}

// the saved indices if all of them are free, so that results are bit-identical, or else the lowest free ones
static bool assign_free(std::vector<uint32_t> & saved, const std::vector<bool> & is_free) {
    bool can_stay = true;
    for (uint32_t i : saved) {
        can_stay = can_stay && i < is_free.size() && is_free[i];
    }
    if (can_stay) {
        return true;
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < is_free.size() && n < saved.size(); i++) {
        if (is_free[i]) {
            saved[n++] = i;
        }
    }
    return n == saved.size();
}

llama_kv_mixed_state::room llama_kv_mixed_state::find_room(const llama_kv_cache_mixed & kv, uint32_t stream) const {
    const auto & present = kv.streams[stream];

    // loading removes the present tokens, except those of other sequences
    const auto stays = [this](const llama_kv_cells & cells, uint32_t i) {
        return seq_id >= 0 && !cells.is_empty(i) && !(cells.seq_has(i, seq_id) && cells.seq_count(i) == 1);
    };
    room res;
    res.n_tokens = kv.layout.n_cells;
    res.cells.assign(kv.layout.n_f16, true);
    for (uint32_t i = 0; i < kv.layout.n_f16; i++) {
        if (stays(present.f16, i)) {
            res.cells[i] = false;
            res.n_tokens--;
        }
    }
    res.tiles.assign(kv.layout.n_tiles, true);
    for (uint32_t i = 0; i < kv.layout.n_tiles * GGML_QLUTATTN_TILE; i++) {
        if (stays(present.packed, i)) {
            res.tiles[i / GGML_QLUTATTN_TILE] = false;
            res.n_tokens--;
        }
    }
    res.n_cells = std::count(res.cells.begin(), res.cells.end(), true);
    res.n_tiles = std::count(res.tiles.begin(), res.tiles.end(), true);
    return res;
}

void llama_kv_mixed_state::assign_cells(const llama_kv_cache_mixed & kv, saved_stream & s) const {
    const room free     = find_room(kv, s.stream);
    uint32_t   n_packed = 0;
    for (const auto & tokens : s.in_tiles) {
        n_packed += count_tokens(tokens);
    }
    const uint32_t n_tokens = s.cells.size() + n_packed;
    if (n_tokens <= free.n_tokens) {
        if (s.tiles.size() > free.n_tiles && n_packed <= free.n_tiles * GGML_QLUTATTN_TILE) {
            merge_tiles(s);
        }
        if (s.tiles.size() > free.n_tiles) {
            unpack_tiles(s, free.n_tiles);
        }
        if (s.cells.size() > free.n_cells) {
            pack_oldest(s, free.n_cells, kv.layout.n_sink);
        }
    }
    if (n_tokens > free.n_tokens || !assign_free(s.cells, free.cells) || !assign_free(s.tiles, free.tiles)) {
        throw std::runtime_error(
            format("the KV cache has no room for the %zu f16 cells and %zu tiles of this state beside its other sequences: use a "
                   "larger -c, or the same --kv-window, --kv-sink and -ub as when it was saved",
                   s.cells.size(), s.tiles.size()));
    }
}

//
// make a state fit
//

// change the tokens of a stream, and their keys and values
void llama_kv_mixed_state::convert(saved_stream & s, const llama_kv_mixed_conversion & how) {
    llama_kv_mixed_cpu    cpu(nullptr);
    llama_kv_mixed_packer packer(cpu);
    for (auto & side : s.sides) {
        side.convert(packer, how);
    }
    const auto token_of = [&s](uint32_t cell) -> const token & {
        return s.in_tiles[cell / GGML_QLUTATTN_TILE][cell % GGML_QLUTATTN_TILE];
    };
    std::vector<token> tokens = s.tokens;
    for (uint32_t cell : how.unpacked) {
        tokens.push_back(token_of(cell));
        tokens.back().shift += s.shifts[cell / GGML_QLUTATTN_TILE];
    }
    auto in_tiles = s.in_tiles;
    auto shifts   = s.shifts;
    for (const auto & p : how.packs) {
        in_tiles.resize(std::max<size_t>(in_tiles.size(), p.tile + 1));
        shifts.resize(in_tiles.size(), 0);
        tile_tokens filled;
        for (uint32_t cell : p.packed) {
            filled.push_back(token_of(cell));
        }
        for (uint32_t cell : p.f16) {
            filled.push_back(tokens[cell]);
        }
        filled.resize(GGML_QLUTATTN_TILE, token{ -1, 0, {}, {} });
        in_tiles[p.tile] = filled;
        shifts[p.tile]   = p.shift;
    }
    // the saved places mean nothing any more
    s.cells.clear();
    s.tokens.clear();
    for (uint32_t row : how.rows) {
        s.cells.push_back(s.cells.size());
        s.tokens.push_back(tokens[row]);
    }
    s.tiles.clear();
    s.in_tiles.clear();
    s.shifts.clear();
    for (uint32_t tile : how.tiles) {
        s.tiles.push_back(s.tiles.size());
        s.in_tiles.push_back(in_tiles[tile]);
        s.shifts.push_back(shifts[tile]);
    }
}

// 0, 1, .. n-1
static std::vector<uint32_t> first_n(uint32_t n) {
    std::vector<uint32_t> res(n);
    std::iota(res.begin(), res.end(), 0);
    return res;
}

// into as few tiles as possible; tiles that were moved differently stay as they are
void llama_kv_mixed_state::merge_tiles(saved_stream & s) {
    if (std::any_of(s.shifts.begin(), s.shifts.end(), [&s](llama_pos shift) { return shift != s.shifts[0]; })) {
        return;
    }
    llama_kv_mixed_conversion how = { (uint32_t) s.cells.size(), (uint32_t) s.tiles.size(), {}, {}, first_n(s.cells.size()), {} };
    for (uint32_t tile = 0; tile < s.tiles.size(); tile++) {
        for (uint32_t i = 0; i < GGML_QLUTATTN_TILE; i++) {
            if (s.in_tiles[tile][i].pos < 0) {
                continue;
            }
            if (how.packs.empty() || how.packs.back().packed.size() == GGML_QLUTATTN_TILE) {
                how.tiles.push_back(how.packs.size());
                how.packs.push_back({ 0, (uint32_t) how.packs.size(), s.shifts[0], {}, {} });
            }
            how.packs.back().packed.push_back(tile * GGML_QLUTATTN_TILE + i);
        }
    }
    convert(s, how);
}

// all but the fullest tiles
void llama_kv_mixed_state::unpack_tiles(saved_stream & s, uint32_t n_kept) {
    std::vector<uint32_t> order = first_n(s.tiles.size());
    std::stable_sort(order.begin(), order.end(), [&s](uint32_t a, uint32_t b) { return count_tokens(s.in_tiles[a]) > count_tokens(s.in_tiles[b]); });
    llama_kv_mixed_conversion how = { (uint32_t) s.cells.size(), (uint32_t) s.tiles.size(), {}, {}, {}, {} };
    how.tiles.assign(order.begin(), order.begin() + n_kept);
    std::sort(how.tiles.begin(), how.tiles.end());
    for (uint32_t tile = 0; tile < s.tiles.size(); tile++) {
        if (std::binary_search(how.tiles.begin(), how.tiles.end(), tile)) {
            continue;
        }
        for (uint32_t i = 0; i < GGML_QLUTATTN_TILE; i++) {
            const token & t = s.in_tiles[tile][i];
            if (t.pos >= 0 && t.shift + s.shifts[tile] > t.pos) {
                return; // its key was turned on its own, and a cell cannot say by how much
            }
            if (t.pos >= 0) {
                how.unpacked.push_back(tile * GGML_QLUTATTN_TILE + i);
            }
        }
    }
    how.rows = first_n(s.cells.size() + how.unpacked.size());
    convert(s, how);
}

// so many f16 tokens that at most n_cells of them are left, sinks last
void llama_kv_mixed_state::pack_oldest(saved_stream & s, uint32_t n_cells, uint32_t n_sink) {
    std::vector<llama_pos> pos_max(LLAMA_MAX_SEQ, -1);
    const auto             see = [&pos_max](const token & t) {
        for (llama_seq_id id : t.seq_ids) {
            pos_max[id] = std::max(pos_max[id], t.pos);
        }
    };
    std::for_each(s.tokens.begin(), s.tokens.end(), see);
    for (const auto & tokens : s.in_tiles) {
        std::for_each(tokens.begin(), tokens.end(), see);
    }
    const auto age = [&](uint32_t i) {
        int64_t res = std::numeric_limits<int64_t>::max();
        for (llama_seq_id id : s.tokens[i].seq_ids) {
            res = std::min<int64_t>(res, (int64_t) pos_max[id] - s.tokens[i].pos);
        }
        return s.tokens[i].pos < (int64_t) n_sink ? -1 : res;
    };
    std::vector<uint32_t> order = first_n(s.cells.size());
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return age(a) > age(b); });

    const uint32_t n_new    = (s.cells.size() - n_cells + GGML_QLUTATTN_TILE - 1) / GGML_QLUTATTN_TILE;
    const size_t   n_packed = std::min<size_t>(n_new * GGML_QLUTATTN_TILE, order.size());

    llama_kv_mixed_conversion how = { (uint32_t) s.cells.size(), (uint32_t) s.tiles.size(), {}, {}, {}, first_n(s.tiles.size() + n_new) };
    for (size_t i = 0; i < n_packed; i++) {
        if (i % GGML_QLUTATTN_TILE == 0) {
            how.packs.push_back({ 0, (uint32_t) (s.tiles.size() + how.packs.size()), 0, {}, {} });
        }
        how.packs.back().f16.push_back(order[i]);
    }
    how.rows.assign(order.begin() + n_packed, order.end());
    std::sort(how.rows.begin(), how.rows.end());
    convert(s, how);
}

//
// load
//

void llama_kv_mixed_state::load(llama_kv_cache_mixed & kv) const {
    if (seq_id < 0) {
        kv.clear(false);
    } else {
        kv.seq_rm(seq_id, -1, -1);
    }

    const auto set = [](llama_kv_cells & cells, uint32_t i, const token & t) {
        if (t.pos >= 0) {
            cells.pos_set(i, t.pos - t.shift);
            cells.ext_set(i, t.ext);
            for (llama_seq_id id : t.seq_ids) {
                cells.seq_add(i, id);
            }
            if (t.shift != 0) {
                cells.pos_add(i, t.shift);
            }
        }
    };
    for (const auto & s : streams) {
        auto & stream = kv.streams[s.stream];
        stream.kept.clear();
        for (size_t i = 0; i < s.cells.size(); i++) {
            set(stream.f16, s.cells[i], s.tokens[i]);
        }
        for (size_t i = 0; i < s.tiles.size(); i++) {
            for (uint32_t k = 0; k < GGML_QLUTATTN_TILE; k++) {
                set(stream.packed, s.tiles[i] * GGML_QLUTATTN_TILE + k, s.in_tiles[i][k]);
            }
            stream.tile_shift[s.tiles[i]] = s.shifts[i];
        }
        size_t i_side = 0;
        for (const auto * side : kv.sides()) {
            const uint8_t * from = s.sides[i_side++].data.data();
            for_each_block(*side, s.stream, s.cells, s.tiles, [&from](uint8_t * to, size_t size) {
                memcpy(to, from, size);
                from += size;
            });
        }
    }
}

void llama_kv_cache_mixed::state_write(llama_io_write_i & io, llama_seq_id seq_id, llama_state_seq_flags /*flags*/) const {
    llama_kv_mixed_state::write(*this, io, seq_id);
}

void llama_kv_cache_mixed::state_read(llama_io_read_i & io, llama_seq_id seq_id, llama_state_seq_flags /*flags*/) {
    llama_kv_mixed_state(*this, io, seq_id).load(*this);
}
