// Package pipeline checks images before they are forwarded to an upstream.
//
// A [Pipeline] is a list of stages, each with the mode that the operator gave it. There are three
// kinds of stage. A [NameStage] decides by names, before any byte is sent. A [LayerStage] watches
// one walk over the files of a layer while the layer arrives. An [ImageStage] judges the whole
// image when its manifest arrives. A stage may be of several kinds.
//
// Invariants:
//   - A stage cannot change anything: it gets values and returns findings.
//   - A layer is decompressed once for all stages, in memory, under limits, and never written to
//     disk.
//   - The results for a layer are remembered by the layer's digest and the stage's revision.
//     Unchanged layers are not scanned again, and new rules scan every layer.
//   - A stage that panics, fails or exceeds its time limit leaves an [Unknown]. The operator's
//     setting decides about it: an unknown never passes by default.
//   - A report is bounded, and holds no secret that a stage found.
package pipeline
