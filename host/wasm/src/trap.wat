;; trap(): fails at once.
(module
  (func (export "trap") unreachable))
