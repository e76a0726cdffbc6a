// Package explain explains the name of an image: the repository that the name means, the facts
// about the image, the requests that a pull would now send to the upstream, and the last pull,
// misses and verdict. It sends no request to an upstream, marks no content as used, and changes no
// fact. It may ask the upstream's tier whether the tier has content.
package explain
