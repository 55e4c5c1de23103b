#include "proxy/http/message.h"

#include <gtest/gtest.h>

#include <vector>

namespace penstock {
namespace {

std::vector<Header> Headers(std::vector<std::pair<std::string_view, std::string_view>> list) {
  std::vector<Header> headers;
  for (const auto& [name, value] : list) headers.push_back({name, value, LookUpHeader(name)});
  return headers;
}

TEST(Message, TrailersKeepNothingThatComesTooLate) {
  Header trailers[] = {{"x-checksum", "1"},
                       {"Set-Cookie", "a=b"},
                       {"content-length", "4", KnownHeader::kContentLength},
                       {"authorization", "Bearer x", KnownHeader::kAuthorization},
                       {"content-type", "text/html", KnownHeader::kContentType},
                       {"grpc-status", "0"}};
  DropFromTrailers(trailers);
  for (const Header& trailer : trailers) {
    EXPECT_EQ(trailer.dropped, trailer.name != "x-checksum" && trailer.name != "grpc-status")
        << trailer.name;
  }
}

TEST(Message, AClientSaysWithTeThatItTakesTrailers) {
  const auto takes = [](std::string_view value) {
    const Header te{"te", value, KnownHeader::kTe};
    return TakesTrailers(std::span(&te, 1));
  };
  EXPECT_TRUE(takes("trailers"));
  EXPECT_TRUE(takes("gzip;q=0.5,\tTRAILERS"));
  EXPECT_FALSE(takes(""));
  EXPECT_FALSE(takes("trailersx, gzip"));
  EXPECT_FALSE(TakesTrailers({}));
}

TEST(Message, FieldsAreFoundByIdAndByNameInAnyCase) {
  const auto headers = Headers({{"X-A", "1"}, {"HOST", "h"}, {"x-a", "2"}});
  EXPECT_EQ(Find(headers, KnownHeader::kHost)->value, "h");
  EXPECT_EQ(Find(headers, "x-A")->value, "1");
  EXPECT_EQ(Find(headers, "x-b"), nullptr);
}

TEST(Message, HopByHopFieldsAndWhatConnectionNamesAreDropped) {
  auto headers = Headers({{"Connection", "close, X-Hop ,authorization"},
                          {"x-hop", "1"},
                          {"Authorization", "k"},
                          {"Keep-Alive", "1"},
                          {"TE", "trailers"},
                          {"Upgrade", "x"},
                          {"Trailer", "x"},
                          {"Transfer-Encoding", "chunked"},
                          {"Content-Length", "1"},
                          {"Proxy-Connection", "x"},
                          {"Content-Type", "t"},
                          {"X-Stays", "1"}});
  DropHopByHop(headers);
  std::vector<std::string_view> left;
  for (const Header& header : headers) {
    if (!header.dropped) left.push_back(header.name);
  }
  EXPECT_EQ(left, (std::vector<std::string_view>{"Authorization", "Content-Type", "X-Stays"}));
}

TEST(KnownHeaders, EveryNameIsFoundInAnyCaseAndNothingElse) {
  const std::pair<std::string_view, KnownHeader> names[] = {
      {"accept", KnownHeader::kAccept},
      {"Accept-Encoding", KnownHeader::kAcceptEncoding},
      {"AGE", KnownHeader::kAge},
      {"authorization", KnownHeader::kAuthorization},
      {"cache-control", KnownHeader::kCacheControl},
      {"cache-status", KnownHeader::kCacheStatus},
      {"connection", KnownHeader::kConnection},
      {"content-encoding", KnownHeader::kContentEncoding},
      {"Content-Length", KnownHeader::kContentLength},
      {"content-type", KnownHeader::kContentType},
      {"date", KnownHeader::kDate},
      {"endpoint-load-metrics", KnownHeader::kEndpointLoadMetrics},
      {"endpoint-load-metrics-format", KnownHeader::kEndpointLoadMetricsFormat},
      {"expect", KnownHeader::kExpect},
      {"Forwarded", KnownHeader::kForwarded},
      {"host", KnownHeader::kHost},
      {"keep-alive", KnownHeader::kKeepAlive},
      {"proxy-connection", KnownHeader::kProxyConnection},
      {"proxy-status", KnownHeader::kProxyStatus},
      {"retry-after", KnownHeader::kRetryAfter},
      {"server", KnownHeader::kServer},
      {"te", KnownHeader::kTe},
      {"trailer", KnownHeader::kTrailer},
      {"transfer-encoding", KnownHeader::kTransferEncoding},
      {"upgrade", KnownHeader::kUpgrade},
      {"user-agent", KnownHeader::kUserAgent},
      {"via", KnownHeader::kVia},
      {"x-forwarded-client-cert", KnownHeader::kXForwardedClientCert},
      {"X-Forwarded-For", KnownHeader::kXForwardedFor},
      {"x-forwarded-host", KnownHeader::kXForwardedHost},
      {"x-forwarded-proto", KnownHeader::kXForwardedProto},
      {"x-penstock-backend", KnownHeader::kXPenstockBackend},
      {"x-penstock-decision", KnownHeader::kXPenstockDecision},
      {"x-request-id", KnownHeader::kXRequestId},
      {"x-should-retry", KnownHeader::kXShouldRetry}};
  EXPECT_EQ(std::size(names), static_cast<size_t>(KnownHeader::kXShouldRetry));
  for (const auto& [name, id] : names) EXPECT_EQ(LookUpHeader(name), id) << name;
  for (const std::string_view name : {"", "hos", "hosts", "x-request-ie", "contentXlength"}) {
    EXPECT_EQ(LookUpHeader(name), KnownHeader::kOther) << name;
  }
}

TEST(KnownHeaders, EachNameIsThatOfItsId) {
  for (int i = 1; i <= static_cast<int>(KnownHeader::kXShouldRetry); ++i) {
    const auto id = static_cast<KnownHeader>(i);
    EXPECT_FALSE(NameOf(id).empty()) << i;
    EXPECT_EQ(LookUpHeader(NameOf(id)), id) << NameOf(id);
  }
  EXPECT_EQ(NameOf(KnownHeader::kOther), "");
}

}  // namespace
}  // namespace penstock
