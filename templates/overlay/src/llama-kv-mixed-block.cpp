#include "llama-kv-mixed-block.h"

#include "ggml-backend.h"
#include "llama-kv-mixed-io.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

static constexpr uint64_t CHUNK = 1 << 20; // bytes

namespace {

class write_to_memory : public llama_io_write_i {
  public:
    std::vector<uint8_t> data;

    void write(const void * src, size_t size) override { data.insert(data.end(), (const uint8_t *) src, (const uint8_t *) src + size); }

    void write_tensor(ggml_tensor * tensor, size_t offset, size_t size) override {
        data.resize(data.size() + size);
        ggml_backend_tensor_get(tensor, data.data() + data.size() - size, offset, size);
    }

    size_t n_bytes() override { return data.size(); }
};

class read_from_memory : public llama_io_read_i {
  public:
    explicit read_from_memory(const std::vector<uint8_t> & data) : data(data) {}

    void read(void * dst, size_t size) override { memcpy(dst, take(size), size); }

    void read_tensor(ggml_tensor * tensor, size_t offset, size_t size) override { ggml_backend_tensor_set(tensor, take(size), offset, size); }

    size_t n_bytes() override { return n_read; }

  private:
    const std::vector<uint8_t> & data;
    size_t                       n_read = 0;

    const uint8_t * take(size_t size) {
        if (size > data.size() - n_read) {
            throw std::runtime_error("a part of the state ends too early");
        }
        n_read += size;
        return data.data() + n_read - size;
    }
};

} // namespace

// on the host, whatever upstream's flags say of a state's data
static std::vector<uint8_t> save(const llama_memory_i & memory, llama_seq_id seq_id, llama_state_seq_flags flags) {
    write_to_memory state;
    memory.state_write(state, seq_id, flags & ~LLAMA_STATE_SEQ_FLAGS_ON_DEVICE);
    return state.data;
}

static void load(llama_memory_i & memory, const std::vector<uint8_t> & data, llama_seq_id seq_id, llama_state_seq_flags flags) {
    read_from_memory in(data);
    memory.state_read(in, seq_id, flags & ~LLAMA_STATE_SEQ_FLAGS_ON_DEVICE);
}

void llama_kv_mixed_write_block(llama_io_write_i & io, uint32_t magic, const llama_memory_i & memory, llama_seq_id seq_id,
                                llama_state_seq_flags flags) {
    const auto            data = save(memory, seq_id, flags);
    llama_kv_mixed_writer out(io, magic);
    const uint64_t        size = data.size();
    out.write(&size, sizeof(size));
    for (uint64_t i = 0; i < size; i += CHUNK) {
        out.write(data.data() + i, std::min(CHUNK, size - i));
    }
    out.write_checksum();
}

std::vector<uint8_t> llama_kv_mixed_read_block(llama_io_read_i & io, uint32_t magic) {
    llama_kv_mixed_reader in(io, magic);
    uint64_t              size;
    in.read(&size, sizeof(size));

    // in chunks, so that a wrong size does not allocate more memory than there is data
    std::vector<uint8_t> res;
    while (res.size() < size) {
        const uint64_t n = std::min(CHUNK, size - res.size());
        res.resize(res.size() + n);
        in.read(res.data() + res.size() - n, n);
    }
    in.check_checksum();
    return res;
}

void llama_kv_mixed_load_block(llama_memory_i & memory, const std::vector<uint8_t> & block, llama_seq_id seq_id, llama_state_seq_flags flags,
                               const std::function<void()> & rest) {
    const auto before = save(memory, seq_id, flags);
    try {
        load(memory, block, seq_id, flags);
        rest();
    } catch (...) {
        load(memory, before, seq_id, flags);
        throw;
    }
}
