#include "proxy/last_good.h"

#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include <gtest/gtest.h>

#include "config/file.h"

namespace penstock {
namespace {

class LastGood : public testing::Test {
 protected:
  LastGood() {
    char name[] = "/tmp/penstock-last-good-XXXXXX";
    folder_ = ::mkdtemp(name);
    path_ = folder_ + "/policy";
  }
  ~LastGood() override {
    ::unlink(path_.c_str());
    ::unlink((path_ + ".new").c_str());
    ::unlink((folder_ + "/other").c_str());
    ::rmdir(folder_.c_str());
  }
  std::string folder_, path_;
};

TEST_F(LastGood, ReplacesTheCopyWholeAndForItsOwnerAlone) {
  for (const std::string& text : {std::string("one"), std::string(200'000, 'x'), std::string("")}) {
    ASSERT_TRUE(KeepLastGood(path_, text).ok());
    EXPECT_EQ(*config::ReadFileText(path_), text);
    struct stat info;
    ASSERT_EQ(::stat(path_.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
    EXPECT_NE(::access((path_ + ".new").c_str(), F_OK), 0);
  }
}

TEST_F(LastGood, DoesNotWriteThroughALinkThatLiesInItsWay) {
  ASSERT_TRUE(KeepLastGood(folder_ + "/other", "theirs").ok());
  ASSERT_EQ(::symlink((folder_ + "/other").c_str(), (path_ + ".new").c_str()), 0);
  ASSERT_TRUE(KeepLastGood(path_, "ours").ok());
  EXPECT_EQ(*config::ReadFileText(folder_ + "/other"), "theirs");
  EXPECT_EQ(*config::ReadFileText(path_), "ours");
}

TEST_F(LastGood, SaysWhatCouldNotBeDoneAndLeavesTheOldOne) {
  const absl::Status status = KeepLastGood(folder_ + "/no/such/folder", "x");
  EXPECT_FALSE(status.ok());
  EXPECT_NE(std::string(status.message()).find("/no/such/folder.new: open: No such file"), std::string::npos)
      << status;
}

}  // namespace
}  // namespace penstock
