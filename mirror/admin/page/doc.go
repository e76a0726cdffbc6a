// Package page has web pages for operators. The pages show the data that programs get from the API
// of the admin listener.
//
// Invariants:
//   - The page changes nothing: it answers only GET and HEAD, and its only form is a search.
//   - templ escapes all data, because names, labels and User-Agents come from clients and
//     registries. Pages have no inline scripts or styles, and load nothing from other sites. The
//     content security policy forbids both.
//   - Each page is complete without its script, which only updates data that has changed.
//   - The package imports none of the parts of dray that it shows. The program passes it
//     the functions that return the data ([Sources]).
package page

// The version must be the version of templ in go.mod and in .ci/env.
//go:generate go run github.com/a-h/templ/cmd/templ@v0.3.1100 generate
