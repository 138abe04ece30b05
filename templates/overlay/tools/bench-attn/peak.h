#pragma once

// How many multiply-adds a thread can do: in the form in which the kernels do them, with all operands in registers or the first cache.

#include <cstdint>

// multiply-adds of one call; 0 where the build has no vector code of that kind
int64_t multiply_add_int8();
int64_t multiply_add_f32();
