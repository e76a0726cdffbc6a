// Package pipeline says what must be true of an image before it lands at an
// upstream.
//
// A [Pipeline] is a list of stages with what the operator decided about each. There
// are three kinds of stage, by when what they look at exists: a [NameStage] decides
// before any byte is sent, a [LayerStage] watches one walk over the files of a layer
// while it arrives, and an [ImageStage] sees the whole image when its manifest comes.
// A stage may be of several kinds.
//
// Invariants:
//   - a stage cannot change anything: it gets values and returns findings;
//   - a layer is decompressed once for all stages, in memory, under limits, and never
//     written to disk;
//   - what stages found in a layer is remembered by the layer's digest and the
//     stage's revision, so that unchanged layers are not looked at again, and new
//     rules look at everything anew;
//   - a stage that panics, fails or takes too long leaves an [Unknown], and the
//     operator's word decides about that; silence is never consent;
//   - a report is bounded, and holds no secret that a stage came upon.
package pipeline
