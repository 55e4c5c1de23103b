#include "backend-engine/load/safetensors_header.h"

#include <gtest/gtest.h>

#include <random>

namespace penstock::engine {
namespace {

std::string ParseError(std::string_view header, uint64_t data_bytes) {
  const auto tensors = ParseSafetensorsHeader(header, data_bytes, "f.safetensors");
  return tensors.ok() ? "parsed" : std::string(tensors.status().message());
}

std::string OneTensor(const std::string& dtype, const std::string& shape,
                      const std::string& offsets) {
  return R"({"t":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

TEST(SafetensorsHeader, ReadsTensorsInTheOrderOfTheirBytes) {
  const auto tensors = ParseSafetensorsHeader(
      R"({"__metadata__":{"format":"pt"},
          "b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},
          "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
          "e":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]}}   )",
      16, "f");
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 3u);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[1].name, "e");
  EXPECT_EQ((*tensors)[2].shape, (std::vector<int64_t>{2, 3}));
}

TEST(SafetensorsHeader, RefusesLengthsThatCannotBe) {
  const auto error = [](std::string bytes, uint64_t file_bytes) {
    const auto length = SafetensorsHeaderLength(bytes, file_bytes, "f");
    return length.ok() ? "" : std::string(length.status().message());
  };
  EXPECT_NE(error("1234567", 7).find("at least 8"), std::string::npos);
  EXPECT_NE(error(std::string(8, '\0'), 100).find("header length 0"), std::string::npos);
  EXPECT_NE(error(std::string(7, '\0') + '\x80', 100).find("9223372036854775808"),
            std::string::npos);
  EXPECT_NE(error(std::string("\x5d\0\0\0\0\0\0\0", 8), 100), "");
  EXPECT_EQ(error(std::string("\x5c\0\0\0\0\0\0\0", 8), 100), "");
  // 100 MB is the format's own limit, however large the file.
  EXPECT_NE(error(std::string("\x01\xe1\xf5\x05\0\0\0\0", 8), 1ull << 40), "");
}

TEST(SafetensorsHeader, RefusesOffsetsThatLie) {
  for (const char* offsets : {"[0,9]", "[4,0]", "[0,3]", "[0,5]", "[1,5]", "[-4,0]", "[0]",
                              "[0,4,4]", "[0.0,4.0]", "[\"0\",\"4\"]", "{}", "4", "null", "[]",
                              "[0,18446744073709551615]", "[18446744073709551612,4]"}) {
    EXPECT_NE(ParseError(OneTensor("\"F32\"", "[1]", offsets), 4), "parsed") << offsets;
  }
  EXPECT_EQ(ParseError(OneTensor("\"F32\"", "[1]", "[0,4]"), 4), "parsed");
}

TEST(SafetensorsHeader, RefusesShapesThatLie) {
  for (const char* shape : {"[2]", "[4294967296,4294967296]", "[9223372036854775807,2]", "[-1]",
                            "[1.0]", "[1,1,1,1,1,1,1,1,1]", "[18446744073709551615]", "1",
                            "[[1]]", "null"}) {
    EXPECT_NE(ParseError(OneTensor("\"F32\"", shape, "[0,4]"), 4), "parsed") << shape;
  }
}

TEST(SafetensorsHeader, RefusesHolesOverlapsAndTrailingBytes) {
  const auto two = [](const char* a, const char* b) {
    return std::string(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)") + a +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}";
  };
  EXPECT_EQ(ParseError(two("[0,4]", "[4,8]"), 8), "parsed");
  EXPECT_NE(ParseError(two("[0,4]", "[5,9]"), 9).find("leave a hole"), std::string::npos);
  EXPECT_NE(ParseError(two("[0,4]", "[3,7]"), 7).find("overlap"), std::string::npos);
  EXPECT_NE(ParseError(two("[0,4]", "[0,4]"), 4).find("overlap"), std::string::npos);
  EXPECT_NE(ParseError(two("[0,4]", "[4,8]"), 9).find("the tensors end at 8"), std::string::npos);
}

TEST(SafetensorsHeader, RefusesWhatIsNotTheFormat) {
  for (const char* header :
       {"", "[]", "{", "{}x", " {}", "{\"t\":1}", "{\"t\":{}}", "{\"t\":{\"dtype\":\"F32\"}}",
        "{\"t\":{\"dtype\":\"F31\",\"shape\":[],\"data_offsets\":[0,4]}}",
        "{\"t\":{\"dtype\":1,\"shape\":[],\"data_offsets\":[0,4]}}",
        "{\"t\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1],\"x\":{}}}",
        "{\"t\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}",
        "{\"__metadata__\":{\"a\":1}}", "{\"__metadata__\":[]}", "{\"\xff\":{}}", "{\"t\":NaN}"}) {
    EXPECT_NE(ParseError(header, 0), "parsed") << header;
  }
  const std::string tensor = R"("t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_NE(ParseError("{" + tensor + "," + tensor + "}", 0).find("appears twice"),
            std::string::npos);
  EXPECT_NE(ParseError(std::string(100000, '['), 0), "parsed");
  EXPECT_NE(ParseError("{\"t\":" + std::string(100000, '['), 0), "parsed");
}

TEST(SafetensorsHeader, SurvivesAnyBytes) {
  const std::string good =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]}})";
  for (uint32_t seed = 0; seed < 20000; ++seed) {
    std::mt19937 random(seed);
    std::string header = good;
    for (uint32_t edits = 1 + random() % 4; edits > 0; --edits) {
      const size_t at = random() % header.size();
      switch (random() % 4) {
        case 0: header[at] = static_cast<char>(random()); break;
        case 1: header.erase(at, 1 + random() % 8); break;
        case 2: header.insert(at, 1, "0123456789[]{},:\"-"[random() % 18]); break;
        default: header.insert(at, header.substr(random() % header.size(), random() % 30)); break;
      }
      if (header.empty()) header = "{";
    }
    const auto tensors = ParseSafetensorsHeader(header, 12, "f");
    if (!tensors.ok()) continue;
    // Whatever passes tiles the data exactly.
    uint64_t at = 0;
    for (const StoredTensor& tensor : *tensors) {
      ASSERT_EQ(tensor.begin, at) << "seed " << seed;
      at = tensor.end;
    }
    ASSERT_EQ(at, 12u) << "seed " << seed;
  }
}

}  // namespace
}  // namespace penstock::engine
