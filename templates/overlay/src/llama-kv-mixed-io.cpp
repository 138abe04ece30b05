#include "llama-kv-mixed-io.h"

#include "llama-impl.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

static constexpr uint32_t STATE_VERSION = 2;

uint64_t llama_kv_mixed_checksum(uint64_t sum, const void * data, size_t size) {
    const auto * bytes = (const uint8_t *) data;
    for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
        uint64_t word = 0;
        memcpy(&word, bytes + i, std::min(sizeof(word), size - i));
        sum = (sum ^ word) * 0x9e3779b97f4a7c15;
        sum ^= sum >> 29;
    }
    return sum + size;
}

llama_kv_mixed_writer::llama_kv_mixed_writer(llama_io_write_i & io, uint32_t magic) : io(io) {
    write_u32(magic);
    write_u32(STATE_VERSION);
}

void llama_kv_mixed_writer::write(const void * data, size_t size) {
    sum = llama_kv_mixed_checksum(sum, data, size);
    io.write(data, size);
}

void llama_kv_mixed_writer::write_u32(uint32_t value) {
    write(&value, sizeof(value));
}

void llama_kv_mixed_writer::write_checksum() {
    io.write(&sum, sizeof(sum));
}

llama_kv_mixed_reader::llama_kv_mixed_reader(llama_io_read_i & io, uint32_t magic) : io(io) {
    if (read_u32() != magic) {
        throw std::runtime_error("this is not the state of a packed KV cache");
    }
    const uint32_t version = read_u32();
    if (version != STATE_VERSION) {
        throw std::runtime_error(format("the state of the KV cache has version %u, this program reads version %u", version, STATE_VERSION));
    }
}

void llama_kv_mixed_reader::read(void * data, size_t size) {
    io.read(data, size);
    sum = llama_kv_mixed_checksum(sum, data, size);
}

uint32_t llama_kv_mixed_reader::read_u32() {
    uint32_t value;
    read(&value, sizeof(value));
    return value;
}

void llama_kv_mixed_reader::check_checksum() {
    uint64_t value;
    io.read(&value, sizeof(value));
    if (value != sum) {
        throw std::runtime_error("the state of the KV cache is damaged: its checksum is wrong");
    }
}
