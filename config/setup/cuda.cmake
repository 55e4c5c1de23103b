# Finds nvcc and turns the CUDA language on, as PENSTOCK_CUDA says. Sets
# PENSTOCK_WITH_CUDA. Looked at, in this order: CMAKE_CUDA_COMPILER, CUDA_HOME,
# PATH, the toolkit that config/setup/cuda.sh assembles, /usr/local/cuda.

if(NOT PENSTOCK_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "PENSTOCK_CUDA is '${PENSTOCK_CUDA}'; it is one of AUTO, ON and OFF")
endif()
set(PENSTOCK_WITH_CUDA OFF)
if(PENSTOCK_CUDA STREQUAL "OFF")
  return()
endif()

if(NOT CMAKE_CUDA_COMPILER)
  find_program(PENSTOCK_NVCC nvcc
    HINTS ENV CUDA_HOME PATHS ${CMAKE_CURRENT_LIST_DIR}/../../.cuda /usr/local/cuda PATH_SUFFIXES bin)
  if(PENSTOCK_NVCC)
    set(CMAKE_CUDA_COMPILER ${PENSTOCK_NVCC})
  elseif(PENSTOCK_CUDA STREQUAL "ON")
    message(FATAL_ERROR "PENSTOCK_CUDA is ON and there is no nvcc: put a CUDA toolkit of 12.8 or newer on PATH, "
      "or run config/setup/cuda.sh, which assembles one in .cuda")
  else()
    message(STATUS "CUDA: off (PENSTOCK_CUDA is AUTO and there is no nvcc)")
    return()
  endif()
endif()

# A100, H100 and H200 with their own instructions (wgmma), B200; PTX of the
# last for what comes after.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 100)
endif()
# CMake 3.25 does not know C++20 of nvcc and would drop the standard silently.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
# CMake 3.25 names this target without looking whether it is there; CUDA 13 has no such library.
add_library(CUDA::nvToolsExt INTERFACE IMPORTED)
find_package(CUDAToolkit 12.8 REQUIRED)
add_compile_options($<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>
                    $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
set(PENSTOCK_WITH_CUDA ON)
message(STATUS "CUDA: ${CUDAToolkit_VERSION} for ${CMAKE_CUDA_ARCHITECTURES} (${CMAKE_CUDA_COMPILER})")
