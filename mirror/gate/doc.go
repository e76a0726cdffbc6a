// Package gate has pushes judged: it looks at layers while they arrive, waits
// for the verdict on an image, keeps the reports, and tells of what happened.
//
// What is judged comes through [pipeline.Contents]: the package does not know
// where the content of a push is.
package gate
