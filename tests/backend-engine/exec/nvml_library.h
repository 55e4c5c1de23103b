// Opens the fake management library beside the test program.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "tests/backend-engine/exec/fake_nvml.h"

namespace penstock::engine {

// Its path; `which` is fake_nvml or fake_nvml_old.
inline std::string PathOfFakeNvml(const std::string& which) {
  char path[4096] = {};
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  std::string folder(path, length > 0 ? static_cast<size_t>(length) : 0);
  folder.resize(folder.rfind('/'));
  return folder + "/lib" + which + ".so";
}

// Holds it open, so that what a test sets stays set.
class FakeNvmlLibrary {
 public:
  explicit FakeNvmlLibrary(const std::string& which = "fake_nvml")
      : path_(PathOfFakeNvml(which)), library_(dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    EXPECT_NE(library_, nullptr) << path_;
    fake_ = reinterpret_cast<FakeNvmlCall*>(dlsym(library_, "fake_nvml"))();
  }
  ~FakeNvmlLibrary() { dlclose(library_); }

  const std::string& path() const { return path_; }
  FakeNvml* operator->() const { return fake_; }

 private:
  const std::string path_;
  void* const library_;
  FakeNvml* fake_ = nullptr;
};

}  // namespace penstock::engine
