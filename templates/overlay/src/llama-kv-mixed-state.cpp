#include "llama-kv-mixed-state.h"

#include "ggml-qlutattn.h"
#include "llama-impl.h"

#include <algorithm>
#include <cstring>
#include <limits>
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
    for (uint32_t cell : t->view_src ? std::vector<uint32_t>() : cells) { // a view: cells of the keys
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

static void write_token(llama_kv_mixed_writer & out, const llama_kv_cells & cells, uint32_t i, llama_seq_id seq_id) {
    if (!is_saved(cells, i, seq_id)) {
        out.write_u32(-1);
        return;
    }
    out.write_u32(cells.pos_get(i));
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
    const auto & stream = kv.streams[s];

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
        write_token(out, stream.f16, cell, seq_id);
    }
    for (uint32_t tile : tiles) {
        out.write_u32(tile);
        for (uint32_t i = 0; i < GGML_QLUTATTN_TILE; i++) {
            write_token(out, stream.packed, tile * GGML_QLUTATTN_TILE + i, seq_id);
        }
    }
    for (const auto & l : kv.layers) {
        for (const auto * side : { &l.k, &l.v }) {
            for_each_block(*side, s, cells, tiles, [&out](const uint8_t * data, size_t size) { out.write(data, size); });
        }
    }
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
    out.write_u32(kv.layers.size());
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

llama_kv_mixed_state::llama_kv_mixed_state(const llama_kv_cache_mixed & kv, llama_io_read_i & io, llama_seq_id seq_id) : seq_id(seq_id) {
    llama_kv_mixed_reader in(io, STATE_MAGIC);

    expect(in, "whether it is of a whole cache", seq_id < 0);
    expect(in, "the type of K", kv.type_k);
    expect(in, "the type of V", kv.type_v);
    expect(in, "the rotation of K", kv.rot_k);
    expect(in, "the rotation of V", kv.rot_v);
    expect(in, "the number of layers", kv.layers.size());
    expect(in, "the number of streams", seq_id < 0 ? kv.layout.n_stream : 1);
    for (const auto & l : kv.layers) {
        expect(in, "a layer", l.il);
        expect(in, "the head size of K", l.head_dim);
        expect(in, "the head size of V", l.head_dim_v);
        expect(in, "the number of heads", l.n_head_kv);
    }

    streams.resize(seq_id < 0 ? kv.layout.n_stream : 1);
    for (uint32_t s = 0; s < streams.size(); s++) {
        streams[s].stream = seq_id < 0 ? s : kv.stream_of(seq_id);
        read_stream(kv, in, streams[s]);
    }
    in.check_checksum();
    for (auto & s : streams) {
        assign_cells(kv, s);
    }
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
    if (seq_id >= 0) {
        res.seq_ids.push_back(seq_id);
        return res;
    }
    const uint32_t n_seq = in.read_u32();
    if (n_seq == 0 || n_seq > LLAMA_MAX_SEQ) {
        throw std::runtime_error(format("the state of the KV cache is damaged: a token has %u sequences", n_seq));
    }
    for (uint32_t i = 0; i < n_seq; i++) {
        const uint32_t id    = in.read_u32();
        const uint32_t limit = kv.layout.n_stream == 1 ? LLAMA_MAX_SEQ : kv.layout.n_stream;
        if (id >= limit || kv.stream_of(id) != stream || (i > 0 && (llama_seq_id) id <= res.seq_ids.back())) {
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
    const auto &   layout  = kv.layout;
    const uint32_t n_f16   = in.read_u32();
    const uint32_t n_tiles = in.read_u32();
    if (n_f16 > layout.n_f16 || n_tiles > layout.n_tiles) {
        throw std::runtime_error(
            format("the state has %u tokens in f16 and %u tiles in a stream, this KV cache has room for %u and %u: use the same context "
                   "size, --kv-window, --kv-sink and -ub as when it was saved",
                   n_f16, n_tiles, layout.n_f16, layout.n_tiles));
    }
    for (uint32_t i = 0; i < n_f16; i++) {
        to.cells.push_back(read_next(in, to.cells));
        to.tokens.push_back(read_token(kv, in, to.stream));
        if (to.tokens.back().pos < 0) {
            throw std::runtime_error("the state of the KV cache is damaged: an f16 cell without a token");
        }
    }
    for (uint32_t i = 0; i < n_tiles; i++) {
        to.tiles.push_back(read_next(in, to.tiles));
        to.tile_tokens.emplace_back();
        for (uint32_t k = 0; k < GGML_QLUTATTN_TILE; k++) {
            to.tile_tokens.back().push_back(read_token(kv, in, to.stream));
        }
    }

    std::vector<uint32_t> cells(n_f16, 0); // blocks have the same size in every cell
    std::vector<uint32_t> tiles(n_tiles, 0);
    for (const auto & l : kv.layers) {
        for (const auto * side : { &l.k, &l.v }) {
            auto & data = to.data.emplace_back();
            for_each_block(*side, 0, cells, tiles, [&](const uint8_t *, size_t size) {
                data.resize(data.size() + size);
                in.read(data.data() + data.size() - size, size);
            });
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

void llama_kv_mixed_state::assign_cells(const llama_kv_cache_mixed & kv, saved_stream & s) const {
    const auto & stream = kv.streams[s.stream];

    // loading removes the present tokens, except those of other sequences
    const auto stays = [this](const llama_kv_cells & cells, uint32_t i) {
        return seq_id >= 0 && !cells.is_empty(i) && !(cells.seq_has(i, seq_id) && cells.seq_count(i) == 1);
    };
    uint32_t          n_used = s.cells.size();
    std::vector<bool> free_cells(kv.layout.n_f16);
    for (uint32_t i = 0; i < free_cells.size(); i++) {
        free_cells[i] = !stays(stream.f16, i);
        n_used += !free_cells[i];
    }
    std::vector<bool> free_tiles(kv.layout.n_tiles, true);
    for (uint32_t i = 0; i < kv.layout.n_tiles * GGML_QLUTATTN_TILE; i++) {
        if (stays(stream.packed, i)) {
            free_tiles[i / GGML_QLUTATTN_TILE] = false;
            n_used++;
        }
    }
    for (const auto & tokens : s.tile_tokens) {
        n_used += std::count_if(tokens.begin(), tokens.end(), [](const token & t) { return t.pos >= 0; });
    }
    if (n_used > kv.layout.n_cells || !assign_free(s.cells, free_cells) || !assign_free(s.tiles, free_tiles)) {
        throw std::runtime_error(format("the KV cache has no room for the %zu f16 cells and %zu tiles of this state beside its other sequences",
                                        s.cells.size(), s.tiles.size()));
    }
}

void llama_kv_mixed_state::load(llama_kv_cache_mixed & kv) const {
    if (seq_id < 0) {
        kv.clear(false);
    } else {
        kv.seq_rm(seq_id, -1, -1);
    }

    const auto set = [](llama_kv_cells & cells, uint32_t i, const token & t) {
        if (t.pos >= 0) {
            cells.pos_set(i, t.pos);
            for (llama_seq_id id : t.seq_ids) {
                cells.seq_add(i, id);
            }
        }
    };
    for (const auto & s : streams) {
        auto & stream = kv.streams[s.stream];
        for (size_t i = 0; i < s.cells.size(); i++) {
            set(stream.f16, s.cells[i], s.tokens[i]);
        }
        for (size_t i = 0; i < s.tiles.size(); i++) {
            for (uint32_t k = 0; k < GGML_QLUTATTN_TILE; k++) {
                set(stream.packed, s.tiles[i] * GGML_QLUTATTN_TILE + k, s.tile_tokens[i][k]);
            }
        }
        size_t i_data = 0;
        for (const auto & l : kv.layers) {
            for (const auto * side : { &l.k, &l.v }) {
                const uint8_t * from = s.data[i_data++].data();
                for_each_block(*side, s.stream, s.cells, s.tiles, [&from](uint8_t * to, size_t size) {
                    memcpy(to, from, size);
                    from += size;
                });
            }
        }
    }
}

void llama_kv_cache_mixed::state_write(llama_io_write_i & io, llama_seq_id seq_id, llama_state_seq_flags /*flags*/) const {
    llama_kv_mixed_state::write(*this, io, seq_id);
}

void llama_kv_cache_mixed::state_read(llama_io_read_i & io, llama_seq_id seq_id, llama_state_seq_flags /*flags*/) {
    llama_kv_mixed_state(*this, io, seq_id).load(*this);
}
