use executor_protocol::PlainFailure;
use wasmparser::{
    BinaryReaderError, CompositeInnerType, FuncType, ImportSectionReader, TypeRef,
    TypeSectionReader, ValType,
};

use super::Refusal;

/// The module name of WASI preview 1.
pub const PREVIEW1: &str = "wasi_snapshot_preview1";

/// The functions of WASI preview 1 with their parameters and results: `i` is i32, `I` is i64.
pub const PREVIEW1_FUNCTIONS: &[(&str, &str, &str)] = &[
    ("args_get", "ii", "i"),
    ("args_sizes_get", "ii", "i"),
    ("clock_res_get", "ii", "i"),
    ("clock_time_get", "iIi", "i"),
    ("environ_get", "ii", "i"),
    ("environ_sizes_get", "ii", "i"),
    ("fd_advise", "iIIi", "i"),
    ("fd_allocate", "iII", "i"),
    ("fd_close", "i", "i"),
    ("fd_datasync", "i", "i"),
    ("fd_fdstat_get", "ii", "i"),
    ("fd_fdstat_set_flags", "ii", "i"),
    ("fd_fdstat_set_rights", "iII", "i"),
    ("fd_filestat_get", "ii", "i"),
    ("fd_filestat_set_size", "iI", "i"),
    ("fd_filestat_set_times", "iIIi", "i"),
    ("fd_pread", "iiiIi", "i"),
    ("fd_prestat_dir_name", "iii", "i"),
    ("fd_prestat_get", "ii", "i"),
    ("fd_pwrite", "iiiIi", "i"),
    ("fd_read", "iiii", "i"),
    ("fd_readdir", "iiiIi", "i"),
    ("fd_renumber", "ii", "i"),
    ("fd_seek", "iIii", "i"),
    ("fd_sync", "i", "i"),
    ("fd_tell", "ii", "i"),
    ("fd_write", "iiii", "i"),
    ("path_create_directory", "iii", "i"),
    ("path_filestat_get", "iiiii", "i"),
    ("path_filestat_set_times", "iiiiIIi", "i"),
    ("path_link", "iiiiiii", "i"),
    ("path_open", "iiiiiIIii", "i"),
    ("path_readlink", "iiiiii", "i"),
    ("path_remove_directory", "iii", "i"),
    ("path_rename", "iiiiii", "i"),
    ("path_symlink", "iiiii", "i"),
    ("path_unlink_file", "iii", "i"),
    ("poll_oneoff", "iiii", "i"),
    ("proc_exit", "i", ""),
    ("proc_raise", "i", "i"),
    ("random_get", "ii", "i"),
    ("sched_yield", "", "i"),
    ("sock_accept", "iii", "i"),
    ("sock_recv", "iiiiii", "i"),
    ("sock_send", "iiiii", "i"),
    ("sock_shutdown", "ii", "i"),
];

/// Holds what a module imports against what there is.
#[derive(Debug, Default)]
pub(super) struct Imports {
    types: Vec<Option<FuncType>>,
}

impl Imports {
    /// Takes the module's types, which the imports name by number.
    pub(super) fn take_types(
        &mut self,
        section: TypeSectionReader<'_>,
    ) -> Result<(), BinaryReaderError> {
        for group in section {
            self.types.extend(group?.into_types().map(|ty| match ty.composite_type.inner {
                CompositeInnerType::Func(ty) => Some(ty),
                _ => None,
            }));
        }
        Ok(())
    }

    /// Refuses the first import that does not exist here.
    pub(super) fn check(
        &self,
        section: ImportSectionReader<'_>,
    ) -> Result<Result<(), BinaryReaderError>, Refusal> {
        for import in section.into_imports() {
            let import = match import {
                Ok(import) => import,
                Err(error) => return Ok(Err(error)),
            };
            let index = match import.ty {
                TypeRef::Func(index) | TypeRef::FuncExact(index) => usize::try_from(index).ok(),
                _ => None,
            };
            let ty = index.and_then(|index| self.types.get(index)?.as_ref());
            let exists = import.module == PREVIEW1
                && ty.is_some_and(|ty| {
                    PREVIEW1_FUNCTIONS.iter().any(|(name, params, results)| {
                        *name == import.name
                            && letters(ty.params()) == *params
                            && letters(ty.results()) == *results
                    })
                });
            if !exists {
                return Err(Refusal::new(
                    PlainFailure::UnsupportedImport,
                    format!("no {:?} {:?} of this type to import", import.module, import.name),
                ));
            }
        }
        Ok(Ok(()))
    }
}

fn letters(types: &[ValType]) -> String {
    types
        .iter()
        .map(|ty| match ty {
            ValType::I32 => 'i',
            ValType::I64 => 'I',
            _ => '?',
        })
        .collect()
}
