#pragma once

// Checksummed reading and writing of saved states.

#include "llama-io.h"

#include <cstddef>
#include <cstdint>

// The checksum after one more block of data. The boundaries of blocks count: the same bytes in other blocks have another checksum.
uint64_t llama_kv_mixed_checksum(uint64_t sum, const void * data, size_t size);

// writes data and adds each block to the checksum
class llama_kv_mixed_writer {
  public:
    llama_kv_mixed_writer(llama_io_write_i & io, uint32_t magic); // writes magic and version

    void write(const void * data, size_t size);
    void write_u32(uint32_t value);
    void write_checksum();

  private:
    llama_io_write_i & io;
    uint64_t           sum = 0;
};

// reads such data; throws std::runtime_error with one sentence where it is of another kind, of another version or damaged
class llama_kv_mixed_reader {
  public:
    llama_kv_mixed_reader(llama_io_read_i & io, uint32_t magic); // reads and checks magic and version

    void     read(void * data, size_t size);
    uint32_t read_u32();
    void     check_checksum();

  private:
    llama_io_read_i & io;
    uint64_t          sum = 0;
};
