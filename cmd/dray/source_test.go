package main

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// source is the product code, type-checked as one whole, with the ways that values take through it.
type source struct {
	types.Info
	files []*ast.File
	set   *token.FileSet
	// flows are the expressions that are assigned to a variable, a field or a parameter, or that a
	// function returns.
	flows map[types.Object][]ast.Expr
	// configured are the fields that the configuration fills, whatever defaults they have.
	configured map[types.Object]bool
}

// productSource is read once for all tests that look into it.
var productSource = sync.OnceValues(readSource)

// readSource reads the packages of dray that are linked into the program.
func readSource() (*source, error) {
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,GoFiles,Export", "dray/cmd/dray")
	cmd.Stderr = os.Stderr
	list, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	s := &source{flows: map[types.Object][]ast.Expr{}, configured: map[types.Object]bool{}, Info: types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{},
		Selections: map[*ast.SelectorExpr]*types.Selection{}, Instances: map[*ast.Ident]types.Instance{}, Implicits: map[ast.Node]types.Object{},
	}}
	exports, ours := map[string]string{}, ownPackages{}
	files := token.NewFileSet()
	s.set = files
	ours.others = importer.ForCompiler(files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	ours.checked = map[string]*types.Package{}
	for in := json.NewDecoder(strings.NewReader(string(list))); ; { // what is imported comes before what imports it
		var p struct {
			ImportPath, Dir, Export string
			GoFiles                 []string
		}
		if err := in.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		exports[p.ImportPath] = p.Export
		if !strings.HasPrefix(p.ImportPath, "dray/") {
			continue
		}
		var parsed []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			parsed = append(parsed, f)
		}
		checks := types.Config{Importer: ours}
		if ours.checked[p.ImportPath], err = checks.Check(p.ImportPath, files, parsed, &s.Info); err != nil {
			return nil, err
		}
		s.files = append(s.files, parsed...)
	}
	for _, f := range s.files {
		s.follow(f)
	}
	return s, nil
}

// ownPackages imports packages of dray as they were checked here, so that an object is the same
// wherever it is used.
type ownPackages struct {
	checked map[string]*types.Package
	others  types.Importer
}

func (o ownPackages) Import(path string) (*types.Package, error) {
	if p := o.checked[path]; p != nil {
		return p, nil
	}
	return o.others.Import(path)
}

// each calls f for every node of the product code.
func (s *source) each(f func(ast.Node)) {
	for _, file := range s.files {
		ast.Inspect(file, func(n ast.Node) bool { f(n); return true })
	}
}

// follow records where the values of one file go.
func (s *source) follow(file *ast.File) {
	var functions []types.Object // literals without a name are nil
	var walk func(n ast.Node) bool
	inside := func(o types.Object, body *ast.BlockStmt) bool {
		if body != nil {
			functions = append(functions, o)
			ast.Inspect(body, walk)
			functions = functions[:len(functions)-1]
		}
		return false
	}
	assign := func(to []ast.Expr, from []ast.Expr) {
		for i, e := range to {
			if len(from) == len(to) {
				s.flow(s.object(e), from[i])
			} else if len(from) == 1 && i == 0 { // what comes first of several results
				s.flow(s.object(e), from[0])
			}
			if lit, ok := from[min(i, len(from)-1)].(*ast.FuncLit); ok {
				inside(s.object(e), lit.Body)
			}
		}
	}
	walk = func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			return inside(s.Defs[n.Name], n.Body)
		case *ast.FuncLit:
			return inside(nil, n.Body)
		case *ast.ReturnStmt:
			if o := functions[len(functions)-1]; o != nil && len(n.Results) > 0 {
				s.flow(o, n.Results[0])
			}
		case *ast.AssignStmt:
			assign(n.Lhs, n.Rhs)
		case *ast.ValueSpec:
			if len(n.Values) > 0 {
				names := make([]ast.Expr, len(n.Names))
				for i, name := range n.Names {
					names[i] = name
				}
				assign(names, n.Values)
			}
		case *ast.RangeStmt:
			for _, e := range []ast.Expr{n.Key, n.Value} {
				if e != nil {
					s.flow(s.object(e), n.X)
				}
			}
		case *ast.StructType:
			for _, f := range n.Fields.List {
				for _, name := range f.Names {
					s.configured[s.Defs[name]] = f.Tag != nil && strings.Contains(f.Tag.Value, `yaml:"`)
				}
			}
		case *ast.CompositeLit:
			s.flowFields(n)
		case *ast.CallExpr:
			s.flowArguments(n)
		}
		return true
	}
	ast.Inspect(file, walk)
}

func (s *source) flow(to types.Object, from ast.Expr) {
	if to != nil {
		s.flows[to] = append(s.flows[to], from)
	}
}

func (s *source) flowFields(lit *ast.CompositeLit) {
	structure, ok := types.Unalias(s.TypeOf(lit)).Underlying().(*types.Struct)
	if !ok {
		return
	}
	for i, e := range lit.Elts {
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			s.flow(s.object(pair.Key), pair.Value)
		} else {
			s.flow(structure.Field(i), e)
		}
	}
}

func (s *source) flowArguments(call *ast.CallExpr) {
	signature, ok := types.Unalias(s.TypeOf(call.Fun)).Underlying().(*types.Signature)
	if !ok {
		return
	}
	if f, ok := s.object(call.Fun).(*types.Func); ok {
		signature = f.Signature() // the parameters that its body uses
	}
	for i, arg := range call.Args {
		if n := signature.Params().Len(); n > 0 {
			s.flow(signature.Params().At(min(i, n-1)), arg)
		}
	}
}

// object is what an expression names, or nil.
func (s *source) object(e ast.Expr) types.Object {
	switch e := e.(type) {
	case *ast.Ident:
		if o := s.Defs[e]; o != nil {
			return o
		}
		return origin(s.Uses[e])
	case *ast.SelectorExpr:
		return origin(s.Uses[e.Sel])
	case *ast.ParenExpr:
		return s.object(e.X)
	case *ast.StarExpr:
		return s.object(e.X)
	case *ast.IndexExpr: // an element stands for the whole, and an instance for its generic function
		return s.object(e.X)
	}
	return nil
}

func origin(o types.Object) types.Object {
	switch o := o.(type) {
	case *types.Func:
		return o.Origin()
	case *types.Var:
		return o.Origin()
	}
	return o
}

// words are the constant texts that an expression can be, as far as they can be followed.
func (s *source) words(e ast.Expr, found map[string]bool) { s.wordsOf(e, found, map[ast.Expr]bool{}) }

func (s *source) wordsOf(e ast.Expr, found map[string]bool, seen map[ast.Expr]bool) {
	if e == nil || seen[e] {
		return
	}
	seen[e] = true
	if v := s.Types[e].Value; v != nil {
		if v.Kind() == constant.String {
			found[constant.StringVal(v)] = true
		}
		return
	}
	switch e := e.(type) {
	case *ast.ParenExpr:
		s.wordsOf(e.X, found, seen)
	case *ast.UnaryExpr:
		s.wordsOf(e.X, found, seen)
	case *ast.StarExpr:
		s.wordsOf(e.X, found, seen)
	case *ast.SliceExpr:
		s.wordsOf(e.X, found, seen)
	case *ast.CompositeLit:
		for _, element := range e.Elts {
			if pair, ok := element.(*ast.KeyValueExpr); ok {
				s.wordsOf(pair.Key, found, seen)
				element = pair.Value
			}
			s.wordsOf(element, found, seen)
		}
	case *ast.IndexExpr:
		if at := s.Types[e.Index].Value; at != nil && at.Kind() == constant.Int {
			s.column(e.X, at, found, seen)
			return
		}
		s.wordsOf(e.X, found, seen)
	case *ast.CallExpr:
		o := s.object(e.Fun)
		whole := s.Types[e.Fun].IsType() || s.Types[e.Fun].IsBuiltin() // a conversion, append
		if f, ok := o.(*types.Func); ok && f.FullName() == "cmp.Or" || whole {
			for _, arg := range e.Args {
				s.wordsOf(arg, found, seen)
			}
			return
		}
		s.wordsIn(o, found, seen)
	case *ast.Ident, *ast.SelectorExpr:
		s.wordsIn(s.object(e), found, seen)
	}
}

// column is one element of each row of a table that is written down, or of one row.
func (s *source) column(row ast.Expr, at constant.Value, found map[string]bool, seen map[ast.Expr]bool) {
	i, _ := constant.Int64Val(at)
	for _, from := range s.flows[s.object(row)] {
		table, ok := from.(*ast.CompositeLit)
		if !ok {
			s.wordsOf(from, found, seen)
			continue
		}
		for _, element := range table.Elts {
			if cells, ok := element.(*ast.CompositeLit); ok && int(i) < len(cells.Elts) {
				s.wordsOf(cells.Elts[i], found, seen)
			}
		}
	}
}

func (s *source) wordsIn(o types.Object, found map[string]bool, seen map[ast.Expr]bool) {
	if s.configured[o] {
		return
	}
	for _, from := range s.flows[o] {
		s.wordsOf(from, found, seen)
	}
}

// calls calls f for each call of a function or method that the full name describes, such as
// "(*log/slog.Logger).Info".
func (s *source) calls(f func(name string, call *ast.CallExpr)) {
	s.each(func(n ast.Node) {
		if call, ok := n.(*ast.CallExpr); ok {
			if o, ok := s.object(call.Fun).(*types.Func); ok {
				f(o.FullName(), call)
			}
		}
	})
}
