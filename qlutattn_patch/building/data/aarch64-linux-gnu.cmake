# Cross-compile for arm64 Linux with clang and the sysroot of Debian's g++-aarch64-linux-gnu; run under qemu-user.
# It works on its own, too: cmake -DCMAKE_TOOLCHAIN_FILE=<this file> -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ ...

set(CMAKE_SYSTEM_NAME      Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)

foreach (lang C CXX ASM)
    set(CMAKE_${lang}_COMPILER_TARGET aarch64-linux-gnu)
endforeach()

set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

find_program(QEMU_AARCH64 NAMES qemu-aarch64 qemu-aarch64-static)
if (QEMU_AARCH64)
    set(CMAKE_CROSSCOMPILING_EMULATOR ${QEMU_AARCH64} -L /usr/aarch64-linux-gnu)
endif()
