#include "lb-policies/params.h"

#include <gtest/gtest.h>

namespace penstock::lb {
namespace {

// What one setting called "size", from 1 to 10, becomes; or the message.
std::string Read(const Params& params) {
  double size = 5;
  ParamReader reader("sample", params);
  reader.Number("size", 1, 10, size);
  const absl::Status status = reader.Finish();
  return status.ok() ? std::to_string(size).substr(0, 3) : std::string(status.message());
}

TEST(ParamReader, ReadsPlainDecimalNumbersWithinBounds) {
  EXPECT_EQ(Read({}), "5.0") << "not given: the default stays";
  EXPECT_EQ(Read({{"size", "2.5"}}), "2.5");
  EXPECT_EQ(Read({{"size", "1e0"}}), "1.0");
  for (const char* wrong :
       {"0.9", "11", "-1", "x", "", " 2", "2 ", "0x2", "inf", "nan", "1e999", "2,5", "+2"}) {
    EXPECT_EQ(Read({{"size", wrong}}),
              "size: \"" + std::string(wrong) + "\" is not a number from 1 to 10");
  }
}

TEST(ParamReader, RefusesASettingThatNobodyAskedFor) {
  EXPECT_EQ(Read({{"sice", "2"}}), "sample has no setting \"sice\"; did you mean \"size\"?");
  EXPECT_EQ(Read({{"colour", "2"}}), "sample has no setting \"colour\"; known: size");
}

TEST(ParamReader, ReportsTheFirstOfSeveralErrors) {
  EXPECT_EQ(Read({{"size", "99"}, {"colour", "2"}}), "size: \"99\" is not a number from 1 to 10");
}

}  // namespace
}  // namespace penstock::lb
