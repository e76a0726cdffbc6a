package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"testing"
)

// The limits of a type. A larger type has to be split.
const (
	maxMethods = 40
	maxFields  = 20
)

// largeTypes may pass the limits, for a reason. An entry that nothing needs any more is refused.
var largeTypes = map[string]string{
	"dray/cmd/dray/config.Checks":      "mirrors a section of the file",
	"dray/cmd/dray/config.Environment": "mirrors the environment",
	"dray/cmd/dray/config.Upstream":    "mirrors a section of the file",
	"dray/cmd/draybench.plan":          "mirrors flags",
	"dray/cmd/fakeecr.flags":           "mirrors flags",
	"dray/upstream/ecrtest.Fault":      "mirrors the JSON of the control API",
	"dray/upstream/ecrtest.Options":    "mirrors flags",
	"dray/upstream/ecrtest.Quirks":     "mirrors the JSON of the control API",
	"dray/upstream/ecrtest.Server":     "the stand-in for AWS: a method for each call that it answers",
	"dray/upstream/ecrtest.Switches":   "mirrors the JSON of the control API",
}

// TestHouseLimits: no type has so many methods or fields that nobody can hold it in mind.
func TestHouseLimits(t *testing.T) {
	unneeded := maps.Clone(largeTypes)
	for _, p := range goList(t, "dray/...") {
		methods, fields := map[string]int{}, map[string]int{}
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if !ast.IsGenerated(file) {
				measure(file, methods, fields)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(methods)) {
			m, f, whole := methods[name], fields[name], p.ImportPath+"."+name
			_, large := largeTypes[whole]
			delete(unneeded, whole)
			switch within := m <= maxMethods && f <= maxFields; {
			case !within && !large:
				t.Errorf("%s has %d methods and %d fields; a type has at most %d and %d", whole, m, f, maxMethods, maxFields)
			case within && large:
				t.Errorf("%s may be large and is not any more", whole)
			}
		}
	}
	for name := range unneeded {
		t.Errorf("%s may be large and is not there", name)
	}
}

// measure counts the methods and fields of the types of a file. Names on one line are one field
// each.
func measure(file *ast.File, methods, fields map[string]int) {
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv != nil {
				methods[receiver(d.Recv.List[0].Type)]++
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				named, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				methods[named.Name.Name] += 0
				if structure, ok := named.Type.(*ast.StructType); ok {
					fields[named.Name.Name] = structure.Fields.NumFields()
				}
			}
		}
	}
}

// receiver is the name of the type that has a method.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}
