// Package page shows operators in a browser what the API of the admin listener tells programs.
//
// Invariants:
//   - The page changes nothing: it answers GET and HEAD alone, and its one form is a search.
//   - Everything that it shows is escaped by templ, because names, labels and User-Agents come from
//     clients and registries. Nothing is inline and nothing comes from elsewhere, and the content
//     security policy allows neither.
//   - All of it is there without the script, which only brings what has changed.
//   - The package imports none of the parts of dray that it shows. The program passes in functions.
package page

// The version is that of the module in go.mod, and of .ci/env.
//go:generate go run github.com/a-h/templ/cmd/templ@v0.3.1100 generate
