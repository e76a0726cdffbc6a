// Package gate stands between a push and its upstream: it has the push judged by the pipeline that
// the operator configured for its repository.
//
// Package pipeline says what must be true of an image, and remembers what it found in a layer. This
// package knows pushes: it names what is judged by repository, starts the look at a layer while
// the client sends it, makes one verdict for all who push the same, waits for it as long as the
// client does, keeps the reports, and sends events (notify). It sees the content of a push through
// [pipeline.Contents] alone.
package gate
