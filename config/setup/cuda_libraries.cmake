# penstock_cuda_library(NAME HEADER) finds one of CUDA's libraries and makes
# penstock_NAME of it: in the toolkit, in the system's folders, or among the wheels
# of python3's environment, as PyTorch brings them (numbered files alone, each
# library in a folder of its own).

function(penstock_cuda_wheels to)
  find_program(PENSTOCK_PYTHON python3)
  set(roots "")
  if(PENSTOCK_PYTHON)
    execute_process(COMMAND ${PENSTOCK_PYTHON} -c
      "import importlib.util as u; s = u.find_spec('nvidia'); print(';'.join(s.submodule_search_locations) if s else '')"
      OUTPUT_VARIABLE folders OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    foreach(folder IN LISTS folders)
      file(GLOB wheels LIST_DIRECTORIES true ${folder}/*)
      list(APPEND roots ${wheels})
    endforeach()
  endif()
  set(${to} ${roots} PARENT_SCOPE)
endfunction()

function(penstock_cuda_library name header)
  penstock_cuda_wheels(wheels)
  set(numbered lib${name}.so.13 lib${name}.so.12 lib${name}.so.2)
  find_path(PENSTOCK_${name}_INCLUDE ${header}
    HINTS ${CUDAToolkit_INCLUDE_DIRS} PATHS ${wheels} PATH_SUFFIXES include)
  find_library(PENSTOCK_${name}_LIBRARY NAMES ${name} ${numbered}
    HINTS ${CUDAToolkit_LIBRARY_DIR} PATHS ${wheels} PATH_SUFFIXES lib lib64)
  if(NOT PENSTOCK_${name}_INCLUDE OR NOT PENSTOCK_${name}_LIBRARY)
    message(FATAL_ERROR "CUDA: no ${header} with lib${name} in the toolkit (${CUDAToolkit_LIBRARY_DIR}), in the "
      "system's folders or among the nvidia wheels of ${PENSTOCK_PYTHON}: install it, or run config/setup/cuda.sh, "
      "which assembles a toolkit that has all in .cuda")
  endif()
  message(STATUS "CUDA: ${PENSTOCK_${name}_LIBRARY}")
  add_library(penstock_${name} INTERFACE)
  # After the toolkit's own: a wheel's folder may have headers of another release.
  target_include_directories(penstock_${name} SYSTEM INTERFACE ${PENSTOCK_${name}_INCLUDE})
  target_link_libraries(penstock_${name} INTERFACE ${PENSTOCK_${name}_LIBRARY})
endfunction()
