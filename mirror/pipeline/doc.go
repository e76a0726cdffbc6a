// Package pipeline checks images before they are forwarded to an upstream.
//
// A [Pipeline] is a list of stages, each with the mode that the operator gave it. There are three
// kinds of stage. A [NameStage] checks the repository when an upload starts, and the repository and
// the tag when the manifest arrives. A [LayerStage] looks at the files of a layer, usually while
// the client still sends the layer. An [ImageStage] judges the whole image when its manifest
// arrives. A stage may be of several kinds.
//
// Invariants:
//   - A stage cannot change the image: it gets values and returns findings.
//   - A layer is decompressed once for all stages. It is decompressed in memory, under limits, and
//     is not written to disk.
//   - The results for a layer are remembered under the layer's digest and the stage's revision. A
//     layer whose results are remembered is not scanned again. New rules change the revision, so
//     every layer is scanned anew.
//   - A stage that panics, fails or exceeds its time limit adds an [Unknown] to the report. The
//     operator's setting ([OnError]) decides whether an unknown rejects the image. By default, an
//     unknown rejects the image.
//   - A report has a bounded size, and contains no secret that a stage found.
package pipeline
