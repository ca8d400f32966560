// Package store keeps objects under keys: in a directory, in an S3 bucket or on a web server. An object appears whole or not at all and is only ever replaced as
// a whole; whoever reads while it is replaced gets the old content or the new, never a mix. What is in a store is other people's bytes: its users check it.
package store

import (
	"context"
	"errors"
	"os"
	"time"
)

// Store is where objects live. All of its methods may be called by several goroutines at a time. Keys have the form that ValidKey tells.
//
// Failures have the reasons of internal/fail, after retries as in internal/retry: fail.Unavailable for a server that cannot be reached or keeps failing, fail.Busy
// for a rate limit, fail.Denied for refused credentials, fail.IO for local files. A context that ends ends them with its cause, and no half object is left to be seen.
type Store interface {
	// Get opens an object. The file is for reading alone, at any offset, and stays as it is when the object is replaced; it may have no name. It holds the whole
	// object, or its last bytes if o.Last says so and the store can (else the whole). fs.ErrNotExist: there is none. ErrUnchanged: it has the tag o.Unless.
	Get(ctx context.Context, key string, o GetOptions) (*os.File, Info, error)
	// Stat tells about an object without reading it. fs.ErrNotExist: there is none.
	Stat(ctx context.Context, key string) (Info, error)
	// Temp makes an empty file with no name, to be filled for one Put: where Put need not copy it, if there is such a place.
	Temp() (*os.File, error)
	// Put makes the content of f, from its first byte on, the object's. ErrDuplicate: there is one, and o.New or the server wants no other.
	Put(ctx context.Context, key string, f *os.File, o PutOptions) (Info, error)
	// String is the store's place for messages, without secrets.
	String() string
}

// Lister is a store that can tell what it holds, and remove it: a directory or a bucket. A web server cannot.
type Lister interface {
	Store
	// List gives the objects whose keys begin with prefix, in the order of their keys. What is being written is none.
	List(ctx context.Context, prefix string) ([]Info, error)
	// Delete removes the object that has still the tag of i. ErrConflict: it was replaced. A missing one is fine.
	Delete(ctx context.Context, i Info) error
	// Sweep removes what writers that were killed before that time left: temporary files, uploads in parts. It tells how many things, and of how many bytes if that is known.
	Sweep(ctx context.Context, before time.Time) (n int, bytes int64, err error)
}

// Info is what a store knows of an object. What it does not know is zero.
type Info struct {
	Key      string
	Size     int64
	Tag      string    // opaque; another content has another one (S3 and HTTP: the ETag)
	Modified time.Time // when it was put
	Used     time.Time // when it was last got, if the store notes that
}

// Last is when anybody last put or got the object, as far as the store knows.
func (i Info) Last() time.Time {
	if i.Used.After(i.Modified) {
		return i.Used
	}
	return i.Modified
}

// GetOptions say what of an object is wanted.
type GetOptions struct {
	Unless   string                  // a tag: nothing is read if the object has it
	Last     int64                   // only so many bytes from its end; 0 for all
	Progress func(done, total int64) // is told of each part that came; total may be -1
}

// PutOptions say when an object may be put.
type PutOptions struct {
	New      bool                    // only where there is none
	Progress func(done, total int64) // is told of each part that was sent
}

var (
	// ErrUnchanged is Get's: the object has the tag that the caller knows.
	ErrUnchanged = errors.New("the object has not changed")
	// ErrDuplicate is Put's: there is such an object, and the store takes no other.
	ErrDuplicate = errors.New("there is such an object already")
	// ErrConflict is Delete's: the object was replaced meanwhile.
	ErrConflict = errors.New("the object was replaced meanwhile")
)
