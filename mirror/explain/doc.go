// Package explain explains the name of an image: which repository the name means, which facts dray
// has about the image, and which requests a pull would send to the upstream now. It also reports
// the last pull and the last misses that dray remembers. It sends no request to an upstream, marks
// no content as used, and changes no fact. It may ask the bucket whether the bucket has content.
package explain
