//! Enums of reasons, steps and kinds, each variant of which has a label for metrics, reports and logs.
//!
//! Such an enum, written by hand, is a list of variants, a list of all of them and a list of labels. The compiler does
//! not notice a variant that the second list lacks. The macro [`labels!`](crate::labels!) makes all three from one
//! declaration.

/// Declares an enum without fields whose variants each have a label.
///
/// The enum gets `ALL`, an array of every variant in the order of declaration; `label`, the text of a variant;
/// `about`, the doc comment of a variant; and `index`, the position of a variant in `ALL`. A table with a cell for each variant is an array of `ALL.len()` cells.
/// `Clone`, `Copy`, `Debug`, `PartialEq`, `Eq` and `Hash` are derived; attributes may derive more.
///
/// ```
/// towpath_wire::labels! {
///     /// A step of a climb.
///     #[derive(PartialOrd, Ord)]
///     pub enum Step {
///         /// The way to the foot of the mountain.
///         Approach = "approach",
///         /// The last metres.
///         Summit = "summit",
///     }
/// }
///
/// let mut taken = [0; Step::ALL.len()];
/// taken[Step::Summit.index()] += 1;
/// assert_eq!(taken, [0, 1]);
/// assert_eq!(Step::ALL.map(Step::label), ["approach", "summit"]);
/// assert_eq!(Step::Summit.about(), "The last metres.");
/// ```
#[macro_export]
macro_rules! labels {
    (
        $(#[$about:meta])*
        $vis:vis enum $name:ident {
            $($(#[$($doc:tt)*])* $variant:ident = $label:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$($doc)*])* $variant,)+ }

        impl $name {
            /// Every variant, in the order of declaration.
            $vis const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// The label of this variant, as metrics, reports and logs have it.
            #[must_use]
            $vis const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// The meaning of this variant: its doc comment, on one line.
            #[must_use]
            #[allow(dead_code, reason = "documents of metrics need it; not every enum is a metric's")]
            $vis const fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($crate::doc_text!($($doc)*)),*).trim_ascii(),)+ }
            }

            /// The position of this variant in `ALL`.
            #[must_use]
            $vis const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// The text of an attribute that is a line of a doc comment, and nothing for any other attribute.
#[doc(hidden)]
#[macro_export]
macro_rules! doc_text {
    (doc = $text:literal) => {
        $text
    };
    ($($other:tt)*) => {
        ""
    };
}

#[cfg(test)]
mod tests {
    labels! {
        /// Three fruits.
        #[derive(PartialOrd, Ord)]
        enum Fruit {
            /// A pome.
            Apple = "apple",
            /// A drupe,
            /// and black.
            #[doc(alias = "cherry")]
            BlackCherry = "black_cherry",
            /// A berry.
            Currant = "currant",
        }
    }

    #[test]
    fn every_variant_is_in_the_list_at_its_index_with_its_label() {
        let all = Fruit::ALL.map(|fruit| (fruit.index(), fruit.label()));
        assert_eq!(all, [(0, "apple"), (1, "black_cherry"), (2, "currant")]);
        assert_eq!(Fruit::ALL[Fruit::BlackCherry.index()], Fruit::BlackCherry);
    }

    #[test]
    fn the_meaning_of_a_variant_is_its_doc_comment_without_other_attributes() {
        assert_eq!(Fruit::ALL.map(Fruit::about), ["A pome.", "A drupe, and black.", "A berry."]);
    }

    #[test]
    fn the_list_has_a_length_for_arrays_and_variants_have_the_derived_order() {
        const CELLS: [u64; Fruit::ALL.len()] = [0; 3];
        assert_eq!(CELLS.len(), 3);
        assert!(Fruit::Apple < Fruit::Currant);
    }
}
