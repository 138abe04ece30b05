#pragma once

// The state of one of upstream's memories as a block of a larger state: with its own size and checksum, loaded completely or not at all.

#include "llama-io.h"
#include "llama-memory.h"

#include <cstdint>
#include <functional>
#include <vector>

void llama_kv_mixed_write_block(llama_io_write_i & io, uint32_t magic, const llama_memory_i & memory, llama_seq_id seq_id,
                                llama_state_seq_flags flags);

// throws std::runtime_error with one sentence if the block is damaged
std::vector<uint8_t> llama_kv_mixed_read_block(llama_io_read_i & io, uint32_t magic);

// load a block into its memory, then do the rest; if either throws, the memory has what it had before
void llama_kv_mixed_load_block(llama_memory_i & memory, const std::vector<uint8_t> & block, llama_seq_id seq_id, llama_state_seq_flags flags,
                               const std::function<void()> & rest);
