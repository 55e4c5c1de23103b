#include "config/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace penstock::config {
namespace {

class ReadFileTextTest : public testing::Test {
 protected:
  ReadFileTextTest() {
    folder_ =
        std::filesystem::path(testing::TempDir()) / ("penstock_file_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
  }
  ~ReadFileTextTest() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return folder_ / name; }

  std::string Message(const std::string& name, size_t bytes_max = kFileBytesMax) const {
    const auto text = ReadFileText(Path(name), bytes_max);
    return text.ok() ? "" : std::string(text.status().message());
  }

  std::filesystem::path folder_;
};

TEST_F(ReadFileTextTest, ReadsAFileWhole) {
  const std::string text(100'000, 'x');
  std::ofstream(Path("a")) << text;
  EXPECT_EQ(*ReadFileText(Path("a")), text);
  std::ofstream(Path("empty")) << "";
  EXPECT_EQ(*ReadFileText(Path("empty")), "");
}

TEST_F(ReadFileTextTest, StopsAtItsLimit) {
  std::ofstream(Path("a")) << "12345";
  EXPECT_EQ(*ReadFileText(Path("a"), 5), "12345");
  EXPECT_EQ(Message("a", 4), "cannot read " + Path("a") + ": it is longer than 4 bytes");
}

TEST_F(ReadFileTextTest, NamesWhatIsNotAFile) {
  EXPECT_EQ(Message("missing"), "cannot read " + Path("missing") + ": No such file or directory");
  EXPECT_EQ(Message(""), "cannot read " + Path("") + ": it is not a regular file");
  std::filesystem::create_symlink(Path("loop"), Path("loop"));
  EXPECT_EQ(Message("loop"), "cannot read " + Path("loop") + ": Too many levels of symbolic links");
}

TEST_F(ReadFileTextTest, NeverWaitsForAPipe) {
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(Message("pipe"), "cannot read " + Path("pipe") + ": it is not a regular file");
}

TEST_F(ReadFileTextTest, FollowsALinkAsAMountedFolderHasThem) {
  std::ofstream(Path("a")) << "text";
  std::filesystem::create_symlink("a", Path("link"));
  EXPECT_EQ(*ReadFileText(Path("link")), "text");
}

}  // namespace
}  // namespace penstock::config
