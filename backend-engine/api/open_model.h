// Opens a model folder for serving: configuration, tokenizer, chat template, and
// a Runner on the device that was asked for. Slow, and meant for a thread beside
// the event loop.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "backend-engine/api/serve_options.h"
#include "backend-engine/api/served_model.h"
#include "backend-engine/exec/runner.h"

namespace penstock::engine {

struct OpenedModel {
  ServedModel model;
  std::unique_ptr<Runner> runner;
  std::string device_note;  // Which device, and why if it was for us to choose.
  std::string start_notes;  // What was decided about memory, and what is amiss, in lines.
};

// `progress` is called now and then, on any thread, one at a time: the share of
// the weights that is loaded. Errors are one line: file or field, found, expected.
absl::StatusOr<OpenedModel> OpenModel(const ServeOptions& options, absl::Time now,
                                      std::function<void(double)> progress);

// The name of the model in a folder: its last part that says something.
std::string NameOfFolder(std::string_view path);

}  // namespace penstock::engine
