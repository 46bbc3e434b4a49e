;; loop(): never ends by itself.
(module
  (func (export "loop")
    (loop $again (br $again))))
